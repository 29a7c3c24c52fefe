"""Where a machine's sockets lie: in its folder, or elsewhere where that folder's path is too long for them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from foundry import files

# The kernel's limit for the path of a unix socket is 107 bytes; ssh appends some of its own while it makes one.
_LONGEST = 80


def make(folder: Path) -> Path:
    """A folder for the sockets of the machine whose folder this is."""
    own = folder.resolve()
    return own if len(str(own)) <= _LONGEST else Path(tempfile.mkdtemp(prefix=files.own_prefix()))


def remove(sockets: Path | None, folder: Path) -> None:
    """Remove what make has made."""
    if sockets and sockets != folder.resolve():
        shutil.rmtree(sockets, ignore_errors=True)
