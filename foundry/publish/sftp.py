"""A store on a host that gives SFTP; the server needs no shell.

Of OpenSSH's extensions to SFTP (its file PROTOCOL, section 4) the server must have posix-rename, which replaces a file
in one step; its plain rename refuses where there is a file already, which is how of several who create a file one wins.
"""

from __future__ import annotations

import calendar
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foundry import files, log, run
from foundry.errors import Cancelled
from foundry.publish import stores
from foundry.publish.openssh import Address, Refused, Session
from foundry.publish.stores import (
    INCOMING,
    UNFINISHED_DAYS,
    Missing,
    Options,
    StoreError,
    Taken,
    checked,
    damaged,
    too_large,
)
from foundry.run import Result

# A line of sftp's own `ls -ln`: mode, links, owner, group, size, time, path.
_LISTED = re.compile(r"([-dlbcps])\S{9}\S?\s+\S+\s+\S+\s+\S+\s+(\d+)\s+(\w{3}\s+\d+\s+[\d:]+) (.*)")
_HALF_A_YEAR = 182 * 86400
# What has not grown for so many seconds nobody brings any more; one that has all its bytes may be read back now.
_QUIET, _LOOK = 3.0, 0.5
_READ_BACK = 8 << 20
_TRIES = 5


class SftpStore:
    """The store in a folder of a server, which must be there. To be used by one thread: its connection ends with it."""

    def __init__(self, address: Address, options: Options) -> None:
        self.url = address.url
        self._scratch_in = options.scratch
        self._session = Session(address, options)
        self._prepared = False

    # what a store does

    def size(self, path: str) -> int | None:
        """See Store."""
        return next((e.size for e in self._list(checked(path)) if e.path == path and e.kind == "-"), None)

    def read(self, path: str) -> bytes:
        """See Store."""
        with self._scratch() as folder:
            self._get(checked(path), folder, limit=stores.LARGEST)
            return (folder / "got").read_bytes()

    def names(self, folder: str) -> list[str]:
        """See Store."""
        inside = [e for e in self._list(checked(folder)) if e.path.startswith(f"{folder}/")]
        return sorted(e.path.removeprefix(f"{folder}/") + ("/" if e.kind == "d" else "") for e in inside)

    def download(self, path: str, target: Path, limit: int | None = None) -> None:
        """See Store."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._scratch(target.parent) as folder:
            self._get(checked(path), folder, limit or 0, limit)
            (folder / "got").chmod(0o644)
            (folder / "got").replace(target)

    def upload(self, source: Path, path: str, digest: str) -> int:
        """See Store. While another upload of the same file grows, this one waits; what does not grow it takes over.

        One that was taken for dead, and finds that others go on with what it has sent, waits for them in turn, each
        time longer.
        """
        size = source.stat().st_size
        if self.size(path) == size:
            return 0
        self._prepare()
        tries = 0
        while True:
            left = self._wait(path, digest, size, 4**tries)
            if left is None:
                return 0
            partial, offset = self._claim(left, digest)
            try:
                return self._bring(source, path, digest, partial, offset)
            except (Missing, Refused):
                tries += 1
                if tries == _TRIES or any(e.path == partial for e in self._list(INCOMING)):
                    raise

    def _bring(self, source: Path, path: str, digest: str, partial: str, offset: int) -> int:
        """Send what partial, a file of our own, has not yet, and let the file appear; returns the bytes sent."""
        size = source.stat().st_size
        with self._scratch() as folder:
            files.need_space(folder, size, f"reading {source.name} back from {self.url}")
            # sftp takes the name for a pattern, and what is in it may be anything.
            (folder / "source").symlink_to(source.resolve())
            sent = self._send(folder, partial, size, offset) if offset < size else 0
            whole = self._arrived(folder, partial, size, digest)
            if not whole and offset:
                # What an earlier call has left was damaged.
                sent += self._send(folder, partial, size, 0)
                whole = self._arrived(folder, partial, size, digest)
        if not whole:
            self._session.ask(f"rm {partial}")
            raise damaged(source, digest, self.url)
        self._session.do(*_made(path), f"chmod 644 {partial}", f"rename {partial} {path}")
        return sent

    def replace(self, path: str, data: bytes) -> None:
        """See Store."""
        with self._brought(checked(path), data) as new:
            self._session.do(*_made(path), f"rename {new} {path}")

    def create(self, path: str, data: bytes) -> None:
        """See Store."""
        with self._brought(checked(path), data) as new:
            # rename -l: the server links the file to its new name, which fails where that is taken.
            answer = self._session.ask(*_made(path), f"rename -l {new} {path}")
            if answer.returncode == 0:
                return
            self._session.ask(f"rm {new}")
            if self.size(path) is not None:
                raise Taken(f"{path} is in {self.url} already")
            raise self._session.refused(answer)

    def remove(self, path: str) -> None:
        """See Store."""
        if self.size(path) is not None:
            self._session.do(f"rm {path}")
        self._session.ask(*(f"-rmdir {folder}" for folder in reversed(_parents(path))))

    def sweep(self, days: float = UNFINISHED_DAYS) -> list[str]:
        """See Store. The server's times are exact to the minute, and after half a year to the day."""
        oldest, swept = time.time() - days * 86400, []
        for entry in self._list(INCOMING):
            if entry.changed <= oldest and self._session.ask(f"rm {entry.path}").returncode == 0:
                swept.append(entry.path.removeprefix(f"{INCOMING}/"))
        return swept

    def close(self) -> None:
        """See Store."""
        self._session.close()

    # its parts

    def _wait(self, path: str, digest: str, size: int, patience: float) -> list[_Entry] | None:
        """Wait while others bring the same file; returns what they have left, or None once the file is there."""
        before: list[_Entry] | None = None
        since = time.monotonic()
        while before is None or self.size(path) != size:
            left = [e for e in self._list(INCOMING) if e.path.startswith(f"{INCOMING}/{digest}.") and e.size <= size]
            if left != before:
                before, since = left, time.monotonic()
            largest = max((e.size for e in left), default=0)
            quiet = _QUIET + (size / _READ_BACK if largest == size else 0)
            if not left or time.monotonic() - since >= quiet * patience:
                return left
            if run.cancelled():
                raise Cancelled("interrupted")
            log.activity(
                f"publish: waiting whether another publisher brings {path}: "
                f"{files.human(largest)} of {files.human(size)} are there"
            )
            time.sleep(_LOOK)
        return None

    def _claim(self, left: list[_Entry], digest: str) -> tuple[str, int]:
        """A partial file of our own, and how much of it is there: one that an earlier upload has left, if any.

        SFTP has no locks, so each upload has a file that nobody else empties: of several who find an old one, the one
        whose rename succeeds goes on with it.
        """
        own = f"{INCOMING}/{digest}.{secrets.token_hex(4)}"
        for entry in sorted(left, key=lambda e: e.size, reverse=True):
            if self._session.ask(f"rename {entry.path} {own}").returncode == 0:
                return own, entry.size
        return own, 0

    def _send(self, folder: Path, partial: str, size: int, offset: int) -> int:
        """Send the rest of folder/source; returns the bytes sent."""
        free = self._free()
        if free is not None and free < size - offset:
            raise self._full(size - offset, free)
        verb = "reput" if offset else "put"
        # -f: the server writes it to its disk before it answers (fsync@openssh.com).
        answer = self._session.ask(f"{verb} -f source {partial}", cwd=folder, size=size - offset)
        if answer.returncode != 0:
            if (free := self._free()) is not None and free < 1 << 20:
                self._session.ask(f"rm {partial}")
                raise self._full(size, free)
            raise self._session.refused(answer)
        return size - offset

    def _arrived(self, folder: Path, partial: str, size: int, digest: str) -> bool:
        """Whether what the server has is what was sent: read back, since SFTP has no digests."""
        got = folder / "got"
        try:
            self._get(partial, folder, size, size + 1)
        except StoreError:
            # Others may have the same account, and whatever they put there must not fill this disk.
            if not got.exists() or got.stat().st_size <= size:
                raise
        same = files.sha256(got) == digest
        got.unlink()
        return same

    def _get(self, path: str, folder: Path, size: int = 0, limit: int | None = None) -> None:
        """Write a file of the server to folder/got; size: about how many bytes that is. Raises Missing."""
        answer = self._session.ask(f"get {path} got", cwd=folder, size=size, limit=limit)
        if answer.returncode != 0:
            got = folder / "got"
            if limit is not None and got.exists() and got.stat().st_size >= limit:
                raise too_large(path, limit, self.url)
            if _absent(answer):
                raise Missing(f"{self.url} has no {path}")
            raise self._session.refused(answer)

    @contextmanager
    def _brought(self, path: str, data: bytes) -> Iterator[str]:
        """A file with data below .incoming, to be moved to path."""
        self._prepare()
        new = f"{INCOMING}/{secrets.token_hex(8)}"
        with self._scratch() as folder:
            (folder / "source").write_bytes(data)
            answer = self._session.ask(f"put -f source {new}", f"chmod 644 {new}", cwd=folder)
            if answer.returncode == 0:
                yield new
                return
        self._session.ask(f"rm {new}")
        if (free := self._free()) is not None and free < 1 << 20:
            raise self._full(len(data), free)
        raise self._session.refused(answer)

    def _prepare(self) -> None:
        """Make the folder for what is not whole yet, which a web server must not serve."""
        if not self._prepared:
            # A batch ends with the first line that fails: an old folder stays as it is.
            answer = self._session.ask(f"mkdir {INCOMING}", f"chmod 700 {INCOMING}")
            if answer.returncode != 0 and self._session.ask(f"cd {INCOMING}").returncode != 0:
                raise self._session.refused(answer)
            self._prepared = True

    def _free(self) -> int | None:
        """The bytes free on the server's disk; None where it does not say (statvfs@openssh.com)."""
        answer = self._session.ask("df .")
        numbers = answer.output.splitlines()[-1].split() if answer.returncode == 0 and answer.output else []
        return int(numbers[2]) << 10 if len(numbers) == 5 and numbers[2].isdigit() else None

    def _full(self, needed: int, free: int) -> StoreError:
        return StoreError(
            f"the disk of {self.url} is full: it has {files.human(free)} free and needs {files.human(needed)}",
            hint="free some space there, or keep fewer versions; what is served is as it was before",
        )

    def _list(self, path: str) -> list[_Entry]:
        """A file itself, or what a folder has; nothing where there is neither."""
        answer = self._session.ask(f"ls -ln {path}")
        if answer.returncode != 0:
            if _absent(answer):
                return []
            raise self._session.refused(answer)
        found = [_LISTED.fullmatch(line) for line in answer.output.splitlines()]
        return [_Entry(m[1], int(m[2]), _when(m[3], time.time()), m[4]) for m in found if m]

    @contextmanager
    def _scratch(self, parent: Path | None = None) -> Iterator[Path]:
        where = parent or self._scratch_in
        if where:
            where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where, prefix=".sftp.") as folder:
            yield Path(folder)


@dataclass(frozen=True)
class _Entry:
    """A line of a listing. kind: "-" for a file, "d" for a folder. changed: seconds since 1970."""

    kind: str
    size: int
    changed: float
    path: str


def _absent(answer: Result) -> bool:
    """Whether sftp has failed since a file is not there."""
    return "not found" in answer.output or "No such file" in answer.output


def _parents(path: str) -> list[str]:
    """The folders that a path leads through, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _made(path: str) -> list[str]:
    """The lines that make the folders of a path where they are missing."""
    return [f"-mkdir {folder}" for folder in _parents(path)]


def _when(text: str, now: float) -> float:
    """The time of a listing in UTC: "Nov 24 16:00", or "Nov 24  2025" where that is more than half a year ago."""
    month, day, rest = text.split()
    year = int(rest) if ":" not in rest else time.gmtime(now).tm_year
    clock = rest if ":" in rest else "00:00"
    found = calendar.timegm(time.strptime(f"{year} {month} {day} {clock}", "%Y %b %d %H:%M"))
    if ":" in rest and found > now + _HALF_A_YEAR:
        found = calendar.timegm(time.strptime(f"{year - 1} {month} {day} {clock}", "%Y %b %d %H:%M"))
    return float(found)
