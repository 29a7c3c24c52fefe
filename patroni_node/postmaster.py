"""Does PostgreSQL run, whatever Patroni does?"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from patroni_node.paths import Paths

MAX_LINE = 32


def runs(paths: Paths, data_dir: str) -> bool:
    """Whether the data directory's postmaster.pid names a process of PostgreSQL's (storage/file "postmaster.pid")."""
    folder = paths.root / data_dir.lstrip("/")
    try:
        number = int(_first_line(folder / "postmaster.pid"))
        return Path(paths.root / "proc" / str(number) / "comm").read_text(encoding="utf-8").strip() == "postgres"
    except (OSError, ValueError):
        return False


def _first_line(path: Path) -> bytes:
    """The folder is another account's: nothing that lies there may hold up root, or take its memory."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError
        return stream.readline(MAX_LINE)
