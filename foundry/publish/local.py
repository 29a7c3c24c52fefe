"""A store that is a folder of this host, or of a file system that is mounted here: any web server can serve it."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from foundry import files, log, run
from foundry.errors import Cancelled
from foundry.publish import stores
from foundry.publish.stores import INCOMING, UNFINISHED_DAYS, Missing, StoreError, Taken, checked, damaged, too_large

_CHUNK = 1 << 20
_LOOK = 0.2
# Seconds in which something of a file that another brings has to arrive, and more for the one who reads it all again.
_PATIENCE = 120.0
_SLOWEST = 1 << 20
# No link, and nothing that keeps who opens it waiting.
_STRAIGHT = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRIES = 10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStore:
    """The store in a folder, which is made where it is missing when something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.url = self.root.as_uri()

    def size(self, path: str) -> int | None:
        """See Store."""
        with self._named(path) as target:
            return target.stat().st_size if target.is_file() else None

    def read(self, path: str) -> bytes:
        """See Store."""
        with self._named(path), self._opened(path) as stream:
            found = stream.read(stores.LARGEST + 1)
        if len(found) > stores.LARGEST:
            raise too_large(path, stores.LARGEST, self.url)
        return found

    def names(self, folder: str) -> list[str]:
        """See Store."""
        with self._named(folder) as target:
            if not target.is_dir():
                return []
            found = [p for p in target.iterdir() if not p.name.startswith(".")]
            return sorted(p.name + ("/" if p.is_dir() else "") for p in found)

    def download(self, path: str, target: Path, limit: int | None = None) -> None:
        """See Store."""
        with self._named(path) as source:
            if limit is not None and source.stat().st_size > limit:
                raise too_large(path, limit, self.url)
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            try:
                with os.fdopen(handle, "wb") as sink, self._opened(path) as stream:
                    while chunk := stream.read(_CHUNK):
                        if limit is not None and sink.tell() + len(chunk) > limit:
                            raise too_large(path, limit, self.url)
                        sink.write(chunk)
                os.chmod(name, 0o644)
                os.replace(name, target)
            finally:
                Path(name).unlink(missing_ok=True)

    def upload(self, source: Path, path: str, digest: str) -> int:
        """See Store. Where somebody else brings the same file now, this waits, and goes on with what that one left."""
        size = source.stat().st_size
        with self._named(path):
            if self.size(path) == size:
                return 0
            partial = self._incoming() / digest
            with self._claimed(partial, path, size) as handle:
                # Whoever held the claim before may have finished.
                if self.size(path) == size:
                    partial.unlink()
                    return 0
                sent = self._fill(source, size, partial, handle, digest)
                os.fchmod(handle, 0o644)
                # It may have taken minutes.
                self._refuse_links(path)
                if not _is_still(partial, handle):
                    raise StoreError(
                        f"{self.url}: somebody has removed or replaced what was brought of {path}", hint="run it again"
                    )
                self._place(os.replace, partial, path)
                return sent

    def _fill(self, source: Path, size: int, partial: Path, handle: int, digest: str) -> int:
        """Make partial as long as source, and certain that it has this digest; returns the bytes copied.

        handle: partial, open. Where its name leads by now is for others to say who may write to the folder.
        """
        held = Path(f"/proc/self/fd/{handle}")
        resumed = held.stat().st_size
        sent = self._append(source, size, held, resumed if resumed <= size else 0)
        if files.sha256(held) == digest:
            return sent
        if resumed:
            sent += self._append(source, size, held, 0)
            if files.sha256(held) == digest:
                return sent
        partial.unlink()
        raise damaged(source, digest, self.url)

    def _append(self, source: Path, size: int, held: Path, offset: int) -> int:
        free = shutil.disk_usage(self.root).free
        if free < size - offset:
            raise self._full(size - offset, free)
        try:
            with held.open("r+b") as sink, source.open("rb") as stream:
                sink.truncate(offset)
                sink.seek(offset)
                stream.seek(offset)
                shutil.copyfileobj(stream, sink, _CHUNK)
                sink.flush()
                os.fsync(sink.fileno())
                return stream.tell() - offset
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # Others may need the space, and nobody can go on before there is more.
            os.truncate(held, 0)
            raise self._full(size - offset, shutil.disk_usage(self.root).free) from error

    def replace(self, path: str, data: bytes) -> None:
        """See Store."""
        with self._named(path), self._written(data) as new:
            self._place(os.replace, new, path)

    def create(self, path: str, data: bytes) -> None:
        """See Store."""
        with self._named(path), self._written(data) as new:
            try:
                self._place(functools.partial(os.link, follow_symlinks=False), new, path)
            except FileExistsError:
                raise Taken(f"{path} is in {self.url} already") from None

    def remove(self, path: str) -> None:
        """See Store."""
        with self._named(path) as target:
            with suppress(FileNotFoundError), self._straight(path) as (parent, name):
                os.unlink(name, dir_fd=parent)
            for folder in target.parents:
                if folder == self.root or not folder.is_relative_to(self.root):
                    break
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    break

    def sweep(self, days: float = UNFINISHED_DAYS) -> list[str]:
        """See Store."""
        oldest, swept = time.time() - days * 86400, []
        with self._explained(INCOMING), suppress(FileNotFoundError):
            self._refuse_links(INCOMING)
            with self._straight(f"{INCOMING}/.") as (folder, _), os.scandir(folder) as there:
                for name in sorted(entry.name for entry in there):
                    with suppress(FileNotFoundError):
                        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        old = stat.S_ISREG(facts.st_mode) and facts.st_mtime <= oldest
                        if old and _remove_unclaimed(folder, name, oldest):
                            swept.append(name)
        return swept

    def close(self) -> None:
        """See Store."""

    @contextmanager
    def _named(self, path: str) -> Iterator[Path]:
        """The file of a path; what goes wrong with it is told in the words of a store."""
        with self._explained(checked(path)):
            self._refuse_links(path)
            yield self.root / path

    @contextmanager
    def _straight(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder of a path, open, and the name there: whatever becomes a link meanwhile is not followed."""
        *folders, name = path.split("/")
        handle = os.open(self.root, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for part in folders:
                inner = os.open(part, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle, name
        finally:
            os.close(handle)

    def _opened(self, path: str) -> BinaryIO:
        """A file of a store, to be read. Raises OSError for what is none: a FIFO would keep its reader waiting."""
        with self._straight(path) as (folder, name):
            stream = os.fdopen(os.open(name, os.O_RDONLY | _STRAIGHT, dir_fd=folder), "rb")
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise OSError(errno.EINVAL, "is no regular file", path)
        return stream

    def _refuse_links(self, path: str) -> None:
        """Whoever else may write to the folder could lead what is written, and removed, to any file of this host.

        This says so; what holds is _straight().
        """
        place = self.root
        for part in path.split("/"):
            place /= part
            if place.is_symlink():
                raise StoreError(
                    f"{self.url}: {place.relative_to(self.root)} is a link, and a store has none",
                    hint="who may write there, and has made it? remove it",
                )

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Missing(f"{self.url} has no {path}: {error.filename}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full(None, 0) from error
            raise StoreError(
                f"{self.url}: {path}: {error.strerror or error}",
                details=error.filename and str(error.filename),
                hint="may this user write there, and is it one file system?",
            ) from error

    def _full(self, needed: int | None, free: int) -> StoreError:
        needs = f" and needs {files.human(needed)}" if needed is not None else ""
        return StoreError(
            f"the disk of {self.url} is full: it has {files.human(free)} free{needs}",
            hint="free some space there, or keep fewer versions; what is served is as it was before",
        )

    def _place(self, act: Callable[..., None], source: Path, path: str) -> None:
        """Move or link a file to its place, whose folder is made. act: os.replace, or os.link."""
        parent = (self.root / path).parent
        for left in range(_TRIES - 1, -1, -1):
            try:
                self._folder(parent)
                with self._straight(path) as (folder, name):
                    act(source, name, dst_dir_fd=folder)
                    os.fsync(folder)
                return
            except FileNotFoundError:
                # Somebody else has removed the folder's last file meanwhile, and the folder with it.
                if not left or parent.is_dir():
                    raise

    def _folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for made in (folder, *folder.parents):
            if made.is_relative_to(self.root):
                _sync(made)

    def _incoming(self) -> Path:
        self._refuse_links(INCOMING)
        folder = self.root / INCOMING
        if not folder.is_dir():
            self._folder(self.root)
            # A web server must not serve what is in it.
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @contextmanager
    def _claimed(self, partial: Path, path: str, size: int) -> Iterator[int]:
        """Hold partial, which is made where it is missing, against others who bring the same file: wait for those.

        Gives it open.

        A claim ends with whoever holds it, however that one ends (on a file server with its host's lease).
        Raises StoreError where the one who holds it brings nothing for long.
        """
        seen, limit = (-1, -1), _PATIENCE + size / _SLOWEST
        since = time.monotonic()
        while True:
            # Opened anew each time: only then does a host ask a file server how far another host has come.
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | _STRAIGHT, 0o600)
            try:
                claimed = _lock(handle)
                # Between open and lock it may have become the finished file, which nobody may write to.
                if claimed and _is_still(partial, handle):
                    yield handle
                    return
                facts = os.fstat(handle)
            finally:
                os.close(handle)
            if claimed or (facts.st_size, facts.st_mtime_ns) != seen:
                seen, since = (facts.st_size, facts.st_mtime_ns), time.monotonic()
            if run.cancelled():
                raise Cancelled("interrupted")
            if time.monotonic() - since > limit:
                raise StoreError(
                    f"another publisher brings {path} to {self.url}, and nothing has come of it for {limit:.0f} s",
                    hint="end that publisher if it stands still, then run it again: what it has brought is used",
                )
            log.activity(
                f"publish: waiting for another publisher, who brings {path} as well: "
                f"{files.human(facts.st_size)} of {files.human(size)} are there"
            )
            time.sleep(0 if claimed else _LOOK)

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A new file with data, to be moved or linked to its place."""
        handle, name = tempfile.mkstemp(dir=self._incoming())
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                # By its handle: a name in there may lead to any file by now.
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def _lock(handle: int) -> bool:
    """Take the claim of a file that is open, unless somebody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path | str, handle: int, folder: int | None = None) -> bool:
    """Whether a path leads to the file that is open. folder: an open one, that the path begins in."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_unclaimed(folder: int, name: str, oldest: float) -> bool:
    """Remove a file of an open folder, unless somebody goes on with it now."""
    handle = os.open(name, os.O_RDWR | _STRAIGHT, dir_fd=folder)
    try:
        if not _lock(handle) or os.fstat(handle).st_mtime > oldest or not _is_still(name, handle, folder):
            return False
        os.unlink(name, dir_fd=folder)
        return True
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    """Make what was renamed in a folder outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
