"""What is in the small images of these tests."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from foundry.publish import contents
from foundry.publish.formats import Repository
from foundry.publish.version import Version
from foundry.publish.views import Views
from foundry.workspace import Workspace
from tests.unit.publish import small_image


@pytest.fixture
def small_contents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk of these tests is a line of text, and a package is its name; what the disk holds lies beside it."""

    def read(image: Path, manifest: Mapping[str, Any], scratch: Path) -> contents.Contents:
        root = tmp_path / "small"
        known = {**manifest, "packages": small_image.manifest()["packages"]}
        return contents.found(root if root.exists() else small_image.tree(root), known)

    @contextmanager
    def repository(workspace: Workspace, manifest: Mapping[str, Any]) -> Iterator[Repository]:
        yield small_image.repository(tmp_path / "packages", manifest)

    def tarball(version: Version, packed: Path, key: object, texts: Path, target: Path) -> None:
        with tarfile.open(target, "w") as archive:
            archive.add(packed / "pool", f"{target.stem}/pool")

    monkeypatch.setattr("foundry.publish.documents.contents.read", read)
    monkeypatch.setattr("foundry.publish.formats.offline.tarball", tarball)
    monkeypatch.setattr("foundry.publish.flow.formats.repository", repository)


@pytest.fixture
def no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """What apt and others read is not written: it takes seconds, and has tests of its own."""
    monkeypatch.setattr(Views, "files", lambda *_: iter(()))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What people are told."""
    found: list[str] = []
    monkeypatch.setattr("foundry.log.info", found.append)
    return found
