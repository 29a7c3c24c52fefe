"""A store's folder to which somebody else may write, too: nothing there leads to other files of this host."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundry import files
from foundry.publish import local
from foundry.publish.local import LocalStore
from foundry.publish.stores import StoreError

DATA = b"an image"
DIGEST = hashlib.sha256(DATA).hexdigest()
Work = Callable[[LocalStore, Path], object]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the publisher's, with a file in it."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def led_away(tmp_path: Path, depth: str, own: Path) -> tuple[LocalStore, Path]:
    """A store of which one folder is a link that leads to own, or to what holds it, and a file to bring."""
    store, source = tmp_path / "store", tmp_path / "disk"
    source.write_bytes(DATA)
    (store / depth).parent.mkdir(parents=True)
    (store / depth).symlink_to(own if depth == "images/a" else own.parent / "other")
    (own.parent / "other").mkdir()
    (own.parent / "other/a").symlink_to(own)
    return LocalStore(store), source


ACTS: dict[str, Work] = {
    "upload": lambda store, source: store.upload(source, "images/a/disk", DIGEST),
    "replace": lambda store, source: store.replace("images/a/precious", DATA),
    "create": lambda store, source: store.create("images/a/new", DATA),
    "remove": lambda store, source: store.remove("images/a/precious"),
    "read": lambda store, source: store.read("images/a/precious"),
    "names": lambda store, source: store.names("images/a"),
    "download": lambda store, source: store.download("images/a/precious", source),
}


@pytest.mark.parametrize("act", ["upload", "replace", "create", "remove", "names", "read"])
@pytest.mark.parametrize("depth", ["images", "images/a"])
def test_a_folder_that_is_a_link_is_refused(act: str, depth: str, own: Path, tmp_path: Path) -> None:
    store, source = led_away(tmp_path, depth, own)
    with pytest.raises(StoreError, match="is a link"):
        ACTS[act](store, source)
    assert {p.name: p.read_text() for p in own.iterdir()} == {"precious": "precious"}


@pytest.mark.parametrize("act", ["upload", "replace", "create", "remove", "read", "download"])
@pytest.mark.parametrize("depth", ["images", "images/a"])
def test_a_folder_that_becomes_a_link_after_that_was_looked_at(
    act: str, depth: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload takes minutes in between, and who tries at each change needs no more than luck for the others."""
    monkeypatch.setattr(LocalStore, "_refuse_links", lambda *_: None)
    store, source = led_away(tmp_path, depth, own)
    with pytest.raises(StoreError):
        ACTS[act](store, source)
    assert {p.name: p.read_text() for p in own.iterdir()} == {"precious": "precious"}
    assert source.read_bytes() == DATA


def test_an_upload_that_was_begun_is_no_link(own: Path, tmp_path: Path) -> None:
    """It was gone on with: the file that it led to was cut off, and written over."""
    source = tmp_path / "disk"
    source.write_bytes(DATA)
    incoming = tmp_path / "store/.incoming"
    incoming.mkdir(parents=True)
    (incoming / DIGEST).symlink_to(own / "precious")
    with pytest.raises(StoreError):
        LocalStore(tmp_path / "store").upload(source, "images/a/disk", DIGEST)
    assert (own / "precious").read_text() == "precious"


@pytest.mark.parametrize("moment", ["claimed", "hashed"])
def test_an_upload_under_way_becomes_a_link(
    moment: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written over, or made readable for all, the later the easier: an image takes seconds to be hashed."""
    source, store = tmp_path / "disk", LocalStore(tmp_path / "store")
    source.write_bytes(DATA)
    (own / "precious").chmod(0o600)
    partial, real = store.root / ".incoming" / DIGEST, {"claimed": local._is_still, "hashed": files.sha256}[moment]

    def swap(*words: Any) -> Any:
        found = real(*words)
        partial.unlink()
        partial.symlink_to(own / "precious")
        return found

    monkeypatch.setattr(*{"claimed": (local, "_is_still"), "hashed": (files, "sha256")}[moment], swap)
    with pytest.raises(StoreError):
        store.upload(source, "images/a/disk", DIGEST)
    assert (own / "precious").read_text() == "precious"
    assert (own / "precious").stat().st_mode & 0o777 == 0o600
    assert not (store.root / "images/a/disk").exists()


@pytest.mark.parametrize("way", ["replace", "create"])
def test_what_is_being_written_becomes_a_link(
    way: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any file of the publisher's was made readable for all."""
    store = LocalStore(tmp_path / "store")
    (own / "precious").chmod(0o600)

    def swap(_: int) -> None:
        for path in [*store.root.glob(".incoming/*")]:
            path.unlink()
            path.symlink_to(own / "precious")

    monkeypatch.setattr(os, "fsync", swap)
    getattr(store, way)("index.asc", DATA)
    assert (own / "precious").stat().st_mode & 0o777 == 0o600
    assert (own / "precious").read_text() == "precious"


@pytest.mark.parametrize("way", ["upload", "sweep"])
def test_the_folder_of_uploads_is_no_link(way: str, own: Path, tmp_path: Path) -> None:
    source, store = tmp_path / "disk", LocalStore(tmp_path / "store")
    source.write_bytes(DATA)
    store.root.mkdir()
    (store.root / ".incoming").symlink_to(own)
    with pytest.raises(StoreError, match="is a link"):
        store.upload(source, "disk", DIGEST) if way == "upload" else store.sweep(0)
    assert [p.name for p in own.iterdir()] == ["precious"]


def test_the_folder_of_uploads_becomes_a_link(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each old file of any folder of the publisher's was removed."""
    monkeypatch.setattr(LocalStore, "_refuse_links", lambda *_: None)
    store = LocalStore(tmp_path / "store")
    store.root.mkdir()
    (store.root / ".incoming").symlink_to(own)
    with pytest.raises(StoreError):
        store.sweep(0)
    assert [p.name for p in own.iterdir()] == ["precious"]


def test_what_is_swept_is_no_link_or_folder(own: Path, tmp_path: Path) -> None:
    """Whoever has put one there keeps nobody from sweeping the others."""
    store = LocalStore(tmp_path / "store")
    incoming = store.root / ".incoming"
    (incoming / "a").mkdir(parents=True)
    (incoming / "b").symlink_to(own / "precious")
    (incoming / "c").touch()
    assert store.sweep(0) == ["c"]
    assert {p.name for p in incoming.iterdir()} == {"a", "b"}
    assert (own / "precious").exists()


@pytest.mark.parametrize("kind", ["FIFO", "link"])
def test_what_is_no_file_is_not_waited_for(kind: str, own: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.root.mkdir()
    path = store.root / "index.asc"
    os.mkfifo(path) if kind == "FIFO" else path.symlink_to("/dev/zero")
    with pytest.raises(StoreError):
        store.read("index.asc")
    with pytest.raises(StoreError):
        store.download("index.asc", tmp_path / "target")
    assert not (tmp_path / "target").exists()
