"""Versions and channels on servers: a folder, OpenSSH's sshd and SeaweedFS' S3, with images of a few hundred bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from foundry.publish import aptrepo, flow, ledger, releases, stores
from foundry.publish.ledger import Conflict
from foundry.publish.session import reading
from foundry.publish.stores import Options, Store
from tests.pipeline.store_places import PART, Place
from tests.unit.publish.conftest import kept_keys, small_contents  # noqa: F401
from tests.unit.publish.publishing import NAME, Project

pytestmark = pytest.mark.usefixtures("credentials", "small_contents")
Made = Callable[[str], Project]


@pytest.fixture
def made(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a publisher, on a build host of its own; all have the one key of small_contents."""
    options = partial(Options, timeout=20, part_size=PART, ssh_config=place.options.ssh_config)
    monkeypatch.setattr("foundry.publish.session.Options", options)

    def make(name: str, **publish: Any) -> Project:
        s3 = {"endpoint": place.options.endpoint, "region": place.options.region} if place.kind == "s3" else {}
        return Project.at(tmp_path / name, to=place.url, **s3, **publish)

    return make


def served(project: Project) -> tuple[list[str], dict[str, str]]:
    with reading(project.settings, project.workspace, None) as open_:
        found = releases.as_plain(open_, [])
    return found["versions"][NAME], found["channels"][NAME]


def checked(project: Project, wanted: str) -> str:
    """What a consumer finds, in the line about the version."""
    return project.check(wanted, url=str(project.settings.publish.to))[1]


def test_versions_come_move_and_go(place: Place, made: Made) -> None:
    project = made("a", keep=2)
    project.publish("1", "stable")
    assert project.publish("1", "stable")[1].startswith("sent     0 B")
    project.publish("2")
    flow.promote(project.settings, project.workspace, "2", channel="stable", to=None)
    assert checked(project, "stable").startswith(f"version  {NAME} 2, ")
    flow.rollback(project.settings, project.workspace, "stable", name=None, to=None)
    assert checked(project, "stable").startswith(f"version  {NAME} 1, ")
    project.publish("3")
    assert project.publish("4")[-1] == "retired  2"
    assert served(project) == (["1", "3", "4"], {"candidate": "4", "stable": "1"})
    assert place.open().names(f"images/{NAME}/2") == []
    suite = place.now(f"apt/dists/{NAME}-stable/InRelease")
    assert suite and b"Suite: debian-12-stable" in suite
    assert place.now("streams/v1/index.sjson")
    assert place.unfinished() == 0


def test_of_two_publishers_one_wins_and_the_other_says_so(
    place: Place, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both bring the same packages at the same moments, and then make the same entry of the log."""
    one, two = made("a"), made("b")
    one.publish("1")
    assert checked(two, "candidate").startswith(f"version  {NAME} 1, ")
    for project, version in ((one, "2"), (two, "3")):
        project.build(version)
    index = place.now(f"images/{NAME}/1/Packages")
    assert index
    pool = [f"apt/{entry.path}" for entry in aptrepo.entries(index)]
    for path in pool:
        place.open().remove(path)
    together, apart = threading.Barrier(2), threading.Barrier(2)
    kind, real = type(place.open()), ledger.append
    upload = kind.upload

    def bring(self: Store, source: Path, path: str, digest: str) -> int:
        # Both bring as many files, each of them at the moment when the other does: some of these have the same bytes.
        with suppress(threading.BrokenBarrierError):
            apart.wait(10)
        return int(upload(self, source, path, digest))

    def append(*args: Any) -> ledger.State:
        together.wait(60)
        return real(*args)

    ended: dict[str, object] = {}

    def run(project: Project, version: str) -> None:
        try:
            ended[version] = project.publish(version)
        except Exception as error:
            # Whatever it was, the other one need not wait.
            ended[version] = error
            together.abort()

    with monkeypatch.context() as patch:
        patch.setattr(kind, "upload", bring)
        patch.setattr(ledger, "append", append)
        threads = [threading.Thread(target=run, args=a) for a in ((one, "2"), (two, "3"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert {type(said) for said in ended.values()} == {list, Conflict}, ended
    (lost,) = [version for version, said in ended.items() if isinstance(said, Conflict)]
    (won,) = {"2", "3"} - {lost}
    assert isinstance(ended[won], list)
    assert served(one) == (["1", won], {"candidate": won})
    assert all(place.now(path) is not None for path in pool)
    loser = one if lost == "2" else two
    assert f"channel  candidate: {won} -> {lost}" in loser.publish(lost)
    assert checked(loser, "candidate").startswith(f"version  {NAME} {lost}, ")


class Killed(BaseException):
    """This process ends here."""


@pytest.mark.parametrize("number", [20, 26, 30])
def test_a_run_that_ends_anywhere_leaves_what_was_served_and_the_next_one_finishes(
    place: Place, made: Made, number: int
) -> None:
    """Before the change of the store that has this number."""
    project = made("a")
    project.publish("1")
    project.build("2")
    done: list[str] = []
    kind = type(stores.open_store(place.url, place.options))

    def wrapped(name: str) -> Callable[..., object]:
        real = getattr(kind, name)

        def act(self: Store, *args: object) -> object:
            if len(done) == number:
                raise Killed
            done.append(name)
            return real(self, *args)

        return act

    with pytest.MonkeyPatch.context() as patch:
        for name in ("upload", "create", "replace"):
            patch.setattr(kind, name, wrapped(name))
        with pytest.raises(Killed):
            project.publish("2")
    there = "2" if "create" in done else "1"
    assert checked(project, "candidate").startswith(f"version  {NAME} {there}, ")
    project.publish("2")
    assert checked(project, "candidate").startswith(f"version  {NAME} 2, ")
    assert place.unfinished() == 0
