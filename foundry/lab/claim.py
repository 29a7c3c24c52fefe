"""One owner for each lab's folder: the command that makes or removes it, and the keeper that inherits it from that.

The kernel gives it back when the last of them has ended, however that came (flock(2)).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from foundry import run
from foundry.errors import Cancelled, ConfigError, FoundryError
from foundry.lab import keeper
from foundry.machine import owner

CLAIM = "claim"
ENDING_SECONDS = 60.0
"""A keeper whose cluster-up was killed ends its machines first."""
REMOVE_SECONDS = 20.0
"""Machines that were killed a moment ago may write still."""


@contextmanager
def claimed(folder: Path, seconds: float = ENDING_SECONDS) -> Iterator[int]:
    """Hold a lab's folder (made if missing); gives the descriptor by which a child goes on holding it.

    Waits for a keeper that is ending. Raises ConfigError at once while the lab runs, or another command works on it.
    """
    deadline = time.monotonic() + seconds
    handle = _take(folder)
    while handle is None:
        if run.cancelled():
            raise Cancelled("interrupted")
        _refuse(folder, over=time.monotonic() > deadline)
        time.sleep(0.05)
        handle = _take(folder)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {owner.started(os.getpid())}".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def held(folder: Path) -> bool:
    """Whether anyone holds a lab's folder; where that is so, nothing may be taken away from it."""
    if not (folder / CLAIM).exists():
        return False
    handle = _take(folder)
    if handle is not None:
        os.close(handle)
    return handle is None


def empty(folder: Path) -> None:
    """Remove all that is in a lab's folder, but not its claim. Raises FoundryError where something stays.

    Machines that were killed a moment ago may write to it still.
    """
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            for path in (p for p in folder.iterdir() if p.name != CLAIM):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            passing = error.errno in (errno.ENOTEMPTY, errno.ENOENT, errno.EBUSY)
            if not passing or time.monotonic() > deadline:
                raise FoundryError(
                    f"{error.filename} cannot be removed: {error.strerror}",
                    hint="does something of it still run, or is it mounted?",
                ) from error
            time.sleep(0.05)
        else:
            return


def remove(folder: Path) -> None:
    """Remove a lab's folder, which this command has claimed. Raises FoundryError where something of it stays."""
    empty(folder)
    (folder / CLAIM).unlink(missing_ok=True)
    folder.rmdir()


def _take(folder: Path) -> int | None:
    """Try once."""
    with suppress(FileNotFoundError, BlockingIOError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / CLAIM, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before may have removed the folder, and another may have made it anew.
            if os.path.samestat(os.fstat(handle), (folder / CLAIM).stat()):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    return None


def _refuse(folder: Path, *, over: bool) -> None:
    name = folder.name
    if (folder / keeper.STATE).exists():
        refuse_running(name)
    pid, _, since = _owner(folder).partition(" ")
    if pid.isdigit() and owner.started(int(pid)) == since:
        raise ConfigError(
            f"another command (process {pid}) is making or removing lab {name}",
            hint="wait until it has ended, end it with Ctrl-C, or give another --name",
        )
    if over:
        raise ConfigError(
            f"what is left of lab {name} does not end", hint=f"`fuser {folder / CLAIM}` says which process that is"
        )


def refuse_running(name: str) -> NoReturn:
    """Raise the ConfigError for a lab that runs."""
    raise ConfigError(
        f"lab {name} runs already", hint=f"`./inv cluster-down --name {name}`, or another --name for a second lab"
    )


def _owner(folder: Path) -> str:
    try:
        return (folder / CLAIM).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
