"""A store in a folder: how uploads go on, and what they leave."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry.errors import CorruptArtifact
from foundry.publish import stores
from foundry.publish.local import LocalStore
from foundry.publish.stores import INCOMING, Missing, StoreError, Taken

DATA = bytes(range(256)) * 20
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def source(folder: Path) -> Path:
    path = folder / "source"
    path.write_bytes(DATA)
    return path


def left_in(store: LocalStore, data: bytes) -> Path:
    """What an interrupted upload of DATA has left."""
    partial = store.root / INCOMING / DIGEST
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data)
    return partial


@given(kept=st.integers(0, len(DATA) + 10), damaged=st.none() | st.integers(0, len(DATA) - 1))
def test_an_upload_goes_on_from_whatever_is_left(kept: int, damaged: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder) / "store")
        left = bytearray((DATA + bytes(10))[:kept])
        harmed = damaged is not None and damaged < kept <= len(DATA)
        if harmed:
            left[damaged or 0] ^= 1
        partial = left_in(store, bytes(left))
        sent = store.upload(source(Path(folder)), "images/a", DIGEST)
        assert (store.root / "images/a").read_bytes() == DATA
        assert not partial.exists()
        if kept > len(DATA):
            assert sent == len(DATA)
        else:
            assert sent == len(DATA) - kept + (len(DATA) if harmed else 0)


def test_files_can_be_read_by_a_web_server(store: LocalStore, tmp_path: Path) -> None:
    path = source(tmp_path)
    path.chmod(0o600)
    store.upload(path, "images/a", DIGEST)
    store.replace("index.asc", b"x")
    store.create("log/1", b"x")
    assert {oct((store.root / p).stat().st_mode & 0o777) for p in ("images/a", "index.asc", "log/1")} == {"0o644"}
    assert oct((store.root / INCOMING).stat().st_mode & 0o777) == "0o700"
    assert list((store.root / INCOMING).iterdir()) == []


def test_source_that_changed(store: LocalStore, tmp_path: Path) -> None:
    path = source(tmp_path)
    path.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(CorruptArtifact, match="source changed since its digest was taken"):
        store.upload(path, "images/a", DIGEST)
    assert store.size("images/a") is None
    assert list((store.root / INCOMING).iterdir()) == []


def test_create_keeps_what_is_there(store: LocalStore) -> None:
    store.create("log/1", b"first")
    with pytest.raises(Taken, match="log/1 is in "):
        store.create("log/1", b"second")
    assert store.read("log/1") == b"first"


def test_replace_that_fails_leaves_the_old_file(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.replace("index.asc", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="is full"):
        store.replace("index.asc", b"new")
    assert store.read("index.asc") == b"old"
    assert list((store.root / INCOMING).iterdir()) == []


def test_sweep_goes_by_age(store: LocalStore) -> None:
    partial = left_in(store, b"x")
    old = time.time() - 8 * 86400
    (partial.parent / "old").write_bytes(b"")
    os.utime(partial.parent / "old", (old, old))
    assert store.sweep() == ["old"]
    assert store.sweep(days=9) == []
    assert store.sweep(days=0) == [DIGEST]
    assert list(partial.parent.iterdir()) == []


def test_reading_writes_nothing(store: LocalStore, tmp_path: Path) -> None:
    assert (store.size("a"), store.names("a"), store.sweep()) == (None, [], [])
    with pytest.raises(Missing):
        store.read("a")
    store.remove("a/b")
    assert not store.root.exists()


def test_removing_leaves_no_empty_folders(store: LocalStore) -> None:
    store.replace("images/a/1/x", b"x")
    store.replace("images/b", b"x")
    store.remove("images/a/1/x")
    assert store.names("images") == ["b"]
    store.remove("images/b")
    assert [p.name for p in store.root.iterdir()] == [INCOMING]


@pytest.mark.parametrize("way", ["upload", "replace", "create"])
def test_a_folder_that_another_empties_meanwhile_is_made_again(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A publisher retires a version whose package was the last one in its folder, where this one brings the next."""
    store.replace("pool/a/old", b"x")
    real = LocalStore._folder
    emptied: list[Path] = []

    def folder(self: LocalStore, path: Path) -> None:
        real(self, path)
        if path.name == "a" and not emptied:
            emptied.append(path)
            LocalStore(store.root).remove("pool/a/old")
            assert not path.exists()

    monkeypatch.setattr(LocalStore, "_folder", folder)
    if way == "upload":
        assert store.upload(source(tmp_path), "pool/a/new", DIGEST) == len(DATA)
    else:
        getattr(store, way)("pool/a/new", DATA)
    assert emptied and store.read("pool/a/new") == DATA


def test_hidden_files_are_not_listed(store: LocalStore) -> None:
    store.replace("images/a", b"x")
    (store.root / "images/.b").touch()
    assert store.names("images") == ["a"]


def test_files_that_are_larger_than_they_may_be(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.replace("images/a", DATA)
    store.download("images/a", tmp_path / "same", len(DATA))
    with pytest.raises(StoreError, match=r"images/a is larger than 5\.1 kB"):
        store.download("images/a", tmp_path / "less", len(DATA) - 1)
    monkeypatch.setattr(stores, "LARGEST", len(DATA) - 1)
    with pytest.raises(StoreError, match=r"images/a is larger than 5\.1 kB"):
        store.read("images/a")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["same"]
