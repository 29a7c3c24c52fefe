"""Two who bring the same version to a store at the same time, each as it was made at his place."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foundry.publish import flow
from foundry.publish.ledger import Conflict
from foundry.publish.local import LocalStore
from foundry.publish.session import Session
from foundry.publish.stores import StoreError
from tests.unit.publish import small_image
from tests.unit.publish.changed_stores import elsewhere
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Project, Project]:
    """Two places that publish to the store of the first, and have made version 2 of other packages."""
    first = Project.at(tmp_path / "first")
    first.publish("1")
    other = elsewhere(first, tmp_path / "other")
    first.build("2")
    other.build_with("2", packages=small_image.manifest()["packages"][::-1])
    return first, Project(other.workspace, first.settings, first.store)


def test_one_is_told_while_the_other_publishes(two: tuple[Project, Project], monkeypatch: pytest.MonkeyPatch) -> None:
    """He has brought some of it, and would bring the rest in place of what is published by then."""
    first, other = two
    real = LocalStore.upload

    def upload(self: LocalStore, source: Path, path: str, digest: str) -> int:
        if path.endswith("/2/manifest.json"):
            monkeypatch.setattr(LocalStore, "upload", real)
            first.publish("2")
        return real(self, source, path, digest)

    monkeypatch.setattr(LocalStore, "upload", upload)
    with pytest.raises(Conflict, match="somebody else"):
        other.publish("2")
    assert first.check()[1].startswith(f"version  {NAME} 2, ")


def test_whoever_comes_between_is_overwritten(two: tuple[Project, Project], monkeypatch: pytest.MonkeyPatch) -> None:
    """He has begun after the last look at what is there, and ends before he is told."""
    first, other = two
    real = Session.append

    def late(self: Session, *words: str, **facts: str) -> None:
        raise KeyboardInterrupt

    def append(self: Session, *words: str, **facts: str) -> None:
        monkeypatch.setattr(Session, "append", late)
        with pytest.raises(KeyboardInterrupt):
            other.publish("2")
        monkeypatch.setattr(Session, "append", real)
        real(self, *words, **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "append", append)
    first.publish("2")
    assert first.check()[1].startswith(f"version  {NAME} 2, ")


def test_what_a_run_that_was_killed_has_left_is_no_obstacle(
    two: tuple[Project, Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = two

    def killed(self: Session, *words: str, **facts: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            other.publish("2")
    first.publish("2")
    assert first.check()[1].startswith(f"version  {NAME} 2, ")


@pytest.mark.parametrize("lies", [False, True])
def test_what_others_have_put_there_does_not_fill_the_publishers_disk(
    lies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksums of a version that is being brought are looked at again, and may be of any size by then."""
    store, source = LocalStore(tmp_path / "store"), tmp_path / "SHA256SUMS"
    source.write_bytes(b"sums")
    (store.root / "images").mkdir(parents=True)
    with (store.root / "images/sums").open("wb") as sink:
        sink.truncate(1 << 20)
    if lies:
        monkeypatch.setattr(store, "size", lambda _: 4)
    else:
        monkeypatch.setattr(store, "download", lambda *_: pytest.fail("was fetched"))
    open_: Any = SimpleNamespace(store=store, scratch=tmp_path)
    claim = source, "images/sums", hashlib.sha256(b"sums").hexdigest()
    with pytest.raises(StoreError if lies else Conflict, match="is larger than 4 B" if lies else "somebody else"):
        flow._refuse_another(open_, claim)
    assert not list(tmp_path.glob("*same*"))
