"""One run at a time in a build folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from foundry.errors import FoundryError
from foundry.workspace import Workspace


@contextmanager
def held(workspace: Workspace, hint: str) -> Iterator[None]:
    """Hold the build folder (made if missing) for this process, until the block or the process ends.

    Raises FoundryError with hint when another run holds it.
    """
    workspace.build.mkdir(parents=True, exist_ok=True)
    with workspace.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FoundryError(f"another run is using {workspace.build}", hint=hint) from error
        yield
