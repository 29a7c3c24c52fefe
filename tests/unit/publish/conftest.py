"""What is in the small images of these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from foundry import gpg, run
from foundry.publish import contents, flow
from foundry.publish.formats import Repository
from foundry.publish.views import Views
from foundry.workspace import Workspace
from tests.unit.publish import small_image
from tests.unit.publish.gpg_home import Home, Short
from tests.unit.publish.publishing import Project
from tests.unit.publish.replacing import Store

USER = "Somebody"
Keys = Mapping[str, gpg.Key]


@pytest.fixture(scope="session")
def kept_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Two keys, "publisher" and "other", whose agents stay until the tests end: to start one takes longer than to sign.

    An agent ends with the command that it was started with, and that with this process.
    """
    root = tmp_path_factory.mktemp("keys")
    found: dict[str, gpg.Key] = {}
    with ExitStack() as stack:
        for name in ("publisher", "other"):
            made = gpg.throw_away(root / name, f"{USER}: {name}")
            home = ["--homedir", str(root / name)]
            agent = run.contained(["gpg-agent", *home, "--daemon", "--", "sh", "-c", "echo up; exec sleep infinity"])
            process = stack.enter_context(run.Process(agent, name="agent"))
            stack.callback(process.stop, grace=0)
            assert any(line == "up" for line in process.heard())
            quick = ("gpg", *home, "--batch", "--yes", "--no-tty", "--no-autostart", *gpg._UNLOCKED)
            found[name] = gpg.Key(quick, made.fingerprint, made.user)
        yield found


def lighten(patch: pytest.MonkeyPatch, keys: Keys, folder: Path) -> None:
    """Make publishing cheap: small images and packages, keys that are made already, and no power cut to outlast."""

    def read(image: Path, manifest: Mapping[str, Any], scratch: Path) -> contents.Contents:
        root = folder / "small"
        known = {**manifest, "packages": small_image.manifest()["packages"]}
        return contents.found(root if root.exists() else small_image.tree(root), known)

    @contextmanager
    def repository(workspace: Workspace, manifest: Mapping[str, Any]) -> Iterator[Repository]:
        yield small_image.repository(folder / "packages", manifest)

    patch.setattr("foundry.publish.documents.contents.read", read)
    patch.setattr("foundry.publish.flow.formats.repository", repository)
    # Nearly all that a small version costs; test_sbom.py has it done.
    patch.setattr("foundry.publish.sbom.cyclonedx_errors", lambda _: [])
    patch.setattr(gpg, "throw_away", lambda home, user: keys[home.name])
    patch.setattr(os, "fsync", lambda _: None)


def without_views(patch: pytest.MonkeyPatch) -> None:
    """Do not write what apt and others read: it takes seconds, and has tests of its own."""
    patch.setattr(Views, "files", lambda *_: iter(()))


@pytest.fixture
def small_contents(monkeypatch: pytest.MonkeyPatch, kept_keys: Keys, tmp_path: Path) -> None:
    """A disk of these tests is a line of text, and a package is its name; what the disk holds lies beside it."""
    lighten(monkeypatch, kept_keys, tmp_path)


@pytest.fixture
def no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """See without_views."""
    without_views(monkeypatch)


@pytest.fixture(scope="session")
def two_published(kept_keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has published 1 and 2, and 1 as stable; to be copied, not changed.

    The two differ in every file, so that one in place of the other is a change.
    """
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        lighten(patch, kept_keys, folder / "made")
        without_views(patch)
        found = Project.at(folder / "published")
        found.publish("1")
        found.build_with("2", packages=small_image.manifest()["packages"][::-1])
        found.publish("2")
        flow.promote(found.settings, found.workspace, "1", channel="stable", to=None)
        found.key()
    return found


@pytest.fixture(scope="session")
def made_store(kept_keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """To be copied, not changed. Without what apt and others read."""
    folder, home = tmp_path_factory.mktemp("replaced"), Home(tmp_path_factory.mktemp("k") / "h")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(home.folder))
        lighten(patch, kept_keys, folder / "made")
        without_views(patch)
        found = Store.made(home, folder)
    home.end()
    return found


@pytest.fixture
def store(made_store: Store, home: Home, tmp_path: Path) -> Store:
    """A store whose key can be replaced, at a publisher of this test's own."""
    return made_store.copy(home, tmp_path)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What people are told."""
    found: list[str] = []
    monkeypatch.setattr("foundry.log.info", found.append)
    return found


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Short:
    """Paths for homes of gpg."""
    return lambda: tmp_path_factory.mktemp("k") / "h"


@pytest.fixture
def home(short: Short, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """The user's own gpg, empty."""
    found = Home(short())
    monkeypatch.setenv("GNUPGHOME", str(found.folder))
    yield found
    found.end()
