"""Two who bring the same file to a folder at once: all that the other one can do while this one waits for it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest

from foundry import log, run
from foundry.errors import Cancelled
from foundry.publish import local
from foundry.publish.local import LocalStore
from foundry.publish.stores import INCOMING, StoreError

DATA = bytes(range(256)) * 20
DIGEST = hashlib.sha256(DATA).hexdigest()
PATH = "apt/pool/a"


class Other:
    """Another publisher, with the first bytes of the same file. turn: what it does when this one waits, and when."""

    def __init__(self, store: LocalStore, folder: Path) -> None:
        self.store, self.source = store, folder / "source"
        self.source.write_bytes(DATA)
        self.partial, self.target = store.root / INCOMING / DIGEST, store.root / PATH
        self.now, self.waited, self.said = 0.0, 0, list[str]()
        self.turn: Callable[[], object] = lambda: None
        self.begin()

    def begin(self, data: bytes = DATA[:100]) -> None:
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        self.partial.write_bytes(data)
        self.claim: BinaryIO = self.partial.open("r+b")
        fcntl.flock(self.claim, fcntl.LOCK_EX)

    def write(self, data: bytes) -> None:
        self.claim.seek(0, os.SEEK_END)
        self.claim.write(data)
        self.claim.flush()

    def finish(self, target: Path | None = None) -> None:
        """What upload() does at its end."""
        self.write(DATA[self.partial.stat().st_size :])
        path = target or self.target
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.partial, path)
        self.claim.close()

    def end(self) -> None:
        """As the kernel does for one that was killed."""
        self.claim.close()

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.01)
        self.waited += 1
        assert self.waited < 1000, "it waits for ever"
        self.turn()

    def upload(self) -> int:
        return self.store.upload(self.source, PATH, DIGEST)

    def whole(self) -> bool:
        return self.target.read_bytes() == DATA and list(self.partial.parent.iterdir()) == []


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Other]:
    found = Other(LocalStore(tmp_path / "store"), tmp_path)
    clock = SimpleNamespace(sleep=found.sleep, monotonic=lambda: found.now, time=time.time)
    monkeypatch.setattr(local, "time", clock)
    monkeypatch.setattr(log, "activity", found.said.append)
    yield found
    found.claim.close()


def test_the_other_finishes(other: Other) -> None:
    other.turn = other.finish
    assert other.upload() == 0
    assert other.whole()
    assert other.said == [
        f"publish: waiting for another publisher, who brings {PATH} as well: 100 B of 5.1 kB are there"
    ]


def test_the_other_dies(other: Other) -> None:
    other.turn = other.end
    assert other.upload() == len(DATA) - 100
    assert other.whole()


def test_the_other_fails_and_removes_what_it_had(other: Other) -> None:
    def turn() -> None:
        other.partial.unlink()
        other.end()

    other.turn = turn
    assert other.upload() == len(DATA)
    assert other.whole()


def test_the_other_s_disk_is_full(other: Other) -> None:
    def turn() -> None:
        other.claim.truncate(0)
        other.end()

    other.turn = turn
    assert other.upload() == len(DATA)
    assert other.whole()


def test_the_disk_is_full_for_both(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    def turn() -> None:
        other.claim.truncate(0)
        other.end()
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))

    other.turn = turn
    with pytest.raises(StoreError, match="is full"):
        other.upload()
    assert not other.target.exists()
    # Nobody holds it any more.
    with other.partial.open("r+b") as left:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_other_has_left_something_else(other: Other) -> None:
    def turn() -> None:
        other.claim.seek(7)
        other.claim.write(b"damaged")
        other.end()

    other.turn = turn
    assert other.upload() == len(DATA) - 100 + len(DATA)
    assert other.whole()


def at_the_lock(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once, after a file was opened and before it is locked."""
    real, once = local._lock, iter([act])

    def lock(handle: int) -> bool:
        next(once, lambda: None)()
        return real(handle)

    monkeypatch.setattr(local, "_lock", lock)


def test_the_other_finishes_between_open_and_lock(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_lock(monkeypatch, other.finish)
    assert other.upload() == 0
    assert other.whole()


def test_the_other_is_followed_by_a_third_between_open_and_lock(other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap() -> None:
        other.partial.unlink()
        other.end()
        other.begin(DATA[:200])

    at_the_lock(monkeypatch, swap)
    other.turn = lambda: other.waited > 5 and other.end()
    assert other.upload() == len(DATA) - 200
    assert other.waited > 5
    assert other.whole()


def test_the_other_has_brought_it_elsewhere(other: Other) -> None:
    elsewhere = other.store.root / "apt/pool/b"
    other.turn = lambda: other.finish(elsewhere)
    assert other.upload() == len(DATA)
    assert other.whole()
    assert elsewhere.read_bytes() == DATA


def test_the_other_is_slow(other: Other) -> None:
    """However long it takes: something comes of it."""

    def turn() -> None:
        other.now += 100
        other.write(b"x")
        if other.waited == 9:
            other.claim.truncate(100)
            other.finish()

    other.turn = turn
    assert other.upload() == 0
    assert other.now > 5 * local._PATIENCE
    assert other.whole()


def test_the_other_stands_still(other: Other) -> None:
    def turn() -> None:
        other.now += 10

    other.turn = turn
    with pytest.raises(StoreError, match=f"brings {PATH} to .* nothing has come of it for 120 s") as caught:
        other.upload()
    assert "what it has brought is used" in (caught.value.hint or "")
    assert other.partial.read_bytes() == DATA[:100]
    other.end()
    assert other.upload() == len(DATA) - 100


@pytest.mark.parametrize("how", [KeyboardInterrupt, Cancelled])
def test_interrupted_while_it_waits(other: Other, monkeypatch: pytest.MonkeyPatch, how: type[BaseException]) -> None:
    """Ctrl-C comes as an exception to the main thread, and as a mark that others look at."""

    def turn() -> None:
        if how is KeyboardInterrupt:
            raise KeyboardInterrupt
        monkeypatch.setattr(run, "cancelled", lambda: True)

    other.turn = turn
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(how):
        other.upload()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert other.partial.read_bytes() == DATA[:100]


def test_sweeping_leaves_what_somebody_goes_on_with(other: Other) -> None:
    os.utime(other.partial, (0, 0))
    assert other.store.sweep() == []
    other.end()
    assert other.store.sweep() == [DIGEST]
