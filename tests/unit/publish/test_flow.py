"""Versions and channels in a store: published, promoted, rolled back, retired; and runs that end in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry.errors import ConfigError
from foundry.publish import flow, ledger, releases
from foundry.publish.gate import Refused
from foundry.publish.ledger import Conflict
from foundry.publish.local import LocalStore
from foundry.publish.session import reading, session
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.at(tmp_path)


def served(project: Project) -> dict[str, dict[str, str]]:
    with reading(project.settings, project.workspace, None) as open_:
        found = releases.as_plain(open_, [])
    return {"channels": found["channels"].get(NAME, {}), "versions": found["versions"].get(NAME, [])}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_version_is_published_and_its_channel_points_at_it(project: Project) -> None:
    lines = project.publish("1")
    assert lines[0] == f"image    {NAME} 1"
    assert lines[2] == "channel  candidate: nothing -> 1"
    assert served(project) == {"channels": {"candidate": "1"}, "versions": ["1"]}
    folder = project.store / "images" / NAME / "1"
    assert sorted(p.name for p in folder.iterdir()) == [
        "Packages",
        "SHA256SUMS",
        "SHA256SUMS.gpg",
        "boot.json",
        "changes.json",
        "changes.md",
        "console.log",
        f"{NAME}-1.qcow2",
        "incus.json",
        "incus.tar.xz",
        "index.html",
        "manifest.json",
        "patroni-node-1-offline.tar",
        "provenance.json",
        "sbom.cdx.json",
        "sbom.spdx.json",
        "verdict.json",
        "verdict.xml",
    ]


def test_what_is_refused_leaves_no_store(project: Project) -> None:
    project.build("1", image="0" * 64)
    with pytest.raises(Refused):
        project.publish("1")
    assert not project.store.exists()


def test_without_a_key_nothing_is_begun(tmp_path: Path) -> None:
    project = Project.at(tmp_path, key=None)
    with pytest.raises(ConfigError, match="there is no key to sign with") as caught:
        project.publish("1")
    assert "publish.key=throw-away" in (caught.value.hint or "")
    assert not project.store.exists()


@pytest.mark.parametrize("name", ["", "Stable", "1", "a b", "a/b", "../x", "a" * 32, "stable\n"])
def test_a_channel_has_a_plain_name(project: Project, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a channel"):
        project.publish("1", name)
    with pytest.raises(ConfigError, match="is no name of a channel"):
        flow.promote(project.settings, project.workspace, "1", channel=name, to=None)
    assert not project.store.exists()


def test_promote_and_rollback_move_pointers_only(project: Project) -> None:
    for version in ("1", "2"):
        project.publish(version)
        flow.promote(project.settings, project.workspace, version, channel="stable", to=None)
    images = everything(project.store / "images")
    assert served(project)["channels"] == {"candidate": "2", "stable": "2"}
    lines = flow.rollback(project.settings, project.workspace, "stable", name=None, to=None)
    assert lines == [f"channel  stable of {NAME}: 2 -> 1"]
    assert served(project)["channels"] == {"candidate": "2", "stable": "1"}
    assert everything(project.store / "images") == images
    with pytest.raises(ConfigError, match="points at 1, its first version"):
        flow.rollback(project.settings, project.workspace, "stable", name=None, to=None)


def test_the_log_says_who_when_from_and_to(project: Project) -> None:
    project.publish("1")
    project.publish("2")
    with session(project.settings, project.workspace, None) as open_:
        found = open_.seen.entries
    assert [(e.action, e.channel, e.before, e.version) for e in found] == [
        ("publish", "candidate", None, "1"),
        ("publish", "candidate", "1", "2"),
    ]
    assert all(e.who and e.when for e in found)


def test_publishing_again_sends_nothing(project: Project) -> None:
    project.publish("1")
    log = everything(project.store / "log")
    lines = project.publish("1")
    assert lines[1].startswith("sent     0 B")
    assert everything(project.store / "log") == log


def test_a_version_that_is_there_goes_to_another_channel(project: Project) -> None:
    project.publish("1")
    project.publish("1", "nightly")
    assert served(project)["channels"] == {"candidate": "1", "nightly": "1"}


def test_old_versions_go_but_not_what_a_channel_points_at(tmp_path: Path) -> None:
    project = Project.at(tmp_path, keep=2)
    project.publish("1", "stable")
    for version in ("2", "3", "4"):
        lines = project.publish(version)
    assert lines[-1] == "retired  2"
    assert served(project) == {"channels": {"candidate": "4", "stable": "1"}, "versions": ["1", "3", "4"]}
    assert sorted(p.name for p in (project.store / "images" / NAME).iterdir()) == ["1", "3", "4"]
    with pytest.raises(ConfigError, match="there is no version 2"):
        flow.promote(project.settings, project.workspace, "2", channel="stable", to=None)


@pytest.mark.parametrize("path", ["pool/../../index.asc", "pool/a b", ""])
def test_a_retired_version_is_whatever_somebody_has_put_there(path: str, tmp_path: Path) -> None:
    """It is not signed any more. Each publish ended with an error of Python's, once all else was done."""
    project = Project.at(tmp_path, keep=1)
    project.publish("1")
    project.publish("2")
    folder = project.store / "images" / NAME / "1"
    (folder / "more").mkdir(parents=True)
    (folder / "a name").touch()
    facts = f"Package: a\nVersion: 1\nArchitecture: all\nFilename: {path}\nSize: 1\nSHA256: x\n"
    (folder / "Packages").write_text(facts if path else "Package: a\n")
    project.publish("2")
    assert {p.name for p in folder.iterdir()} == {"more", "a name"}
    assert served(project)["channels"] == {"candidate": "2"}


def test_ten_versions_cost_ten_uploads(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    real = LocalStore.upload

    def upload(self: LocalStore, source: Path, path: str, digest: str) -> int:
        count = real(self, source, path, digest)
        if count and path.endswith(".qcow2"):
            sent.append(path)
        return count

    monkeypatch.setattr(LocalStore, "upload", upload)
    for version in range(10):
        project.publish(str(version))
    assert len(sent) == 10


class Killed(BaseException):
    """This process ends here."""


def interrupted(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the process end before the change of the store of this number; returns what was changed until then."""
    done: list[str] = []

    def wrapped(name: str) -> None:
        real = getattr(LocalStore, name)

        def act(self: LocalStore, *args: object) -> object:
            if len(done) == number:
                raise Killed
            done.append(name)
            return real(self, *args)

        monkeypatch.setattr(LocalStore, name, act)

    for name in ("upload", "create", "replace", "remove"):
        wrapped(name)
    return done


@pytest.mark.parametrize("number", [0, 1, 7, 25, 26, 27, 28, 29])
def test_a_run_that_ends_anywhere_leaves_what_was_served_and_the_next_one_finishes(
    two_published: Project, tmp_path: Path, number: int
) -> None:
    project = two_published.copy(tmp_path / "copy", keep=1)
    with pytest.MonkeyPatch.context() as patch:
        done = interrupted(patch, number)
        with pytest.raises(Killed):
            project.publish("3")
    # Through the index alone, as it is seen by whoever does not read the log.
    state, _ = ledger.parse_index(index(project))
    assert state.current(NAME, "candidate") == ("3" if "replace" in done else "2")
    assert project.check()[1].startswith(f"version  {NAME} {'3' if 'create' in done else '2'}, ")
    project.publish("3")
    assert served(project) == {"channels": {"candidate": "3", "stable": "1"}, "versions": ["1", "3"]}
    assert sorted(p.name for p in (project.store / "images" / NAME).iterdir()) == ["1", "3"]
    project.check()


def index(project: Project) -> str:
    text = (project.store / "index.asc").read_text(encoding="utf-8")
    return text.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE")[0]


def test_of_two_publishers_one_wins_and_the_other_says_so(project: Project) -> None:
    project.publish("1")
    with session(project.settings, project.workspace, None) as slow:
        project.publish("2")
        with pytest.raises(Conflict, match="somebody else has changed") as caught:
            slow.append("promote", NAME, "1", channel="stable")
    assert "run it again" in (caught.value.hint or "")
    assert served(project)["channels"] == {"candidate": "2"}
