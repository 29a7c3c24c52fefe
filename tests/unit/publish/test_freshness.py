"""For how long an index is believed, who is told of its end, and how stores of before come to have one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foundry import files
from foundry.publish import ledger, releases
from foundry.publish.ledger import Broken
from foundry.publish.local import LocalStore
from foundry.publish.memory import Stale
from tests.unit.publish.changed_stores import (
    before_ids,
    days_later,
    head,
    index,
    promote,
    renew,
    sign,
)
from tests.unit.publish.publishing import Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


# dates


def test_an_index_has_a_date_by_default_that_its_log_wants(project: Project) -> None:
    said = index(project)
    span = datetime.fromisoformat(said["expires"]) - datetime.fromisoformat(said["written"])
    assert span == timedelta(days=30)
    assert said["state"]["valid_days"] == 30
    with days_later(31), pytest.raises(Stale, match="its index was good until"):
        project.check()
    with days_later(29):
        project.check()


@pytest.mark.parametrize(
    ("expires", "why"),
    [(None, "its index has no date, and its log wants one of 30 days"), (90, "its log allows 30 days")],
)
def test_an_index_without_a_date_or_with_one_far_away(project: Project, expires: int | None, why: str) -> None:
    said = index(project)
    date = (datetime.now(UTC) + timedelta(days=expires)).isoformat() if expires else None
    sign(project, ledger.INDEX, json.dumps({**said, "expires": date}))
    with pytest.raises(Stale, match=why):
        project.check()


def test_an_index_of_before_there_were_dates_beside_the_log_of_now(project: Project) -> None:
    before_ids(project)
    undated = (project.store / ledger.INDEX).read_bytes()
    renew(project)
    (project.store / ledger.INDEX).write_bytes(undated)
    with pytest.raises(Stale, match="its index has no date"):
        project.check()


def test_days_that_become_fewer_never_leave_an_index_that_is_refused(project: Project) -> None:
    """A publisher may be killed anywhere."""
    fewer = project.settings.publish.model_copy(update={"valid_days": 5})
    shorter = replace(project, settings=project.settings.model_copy(update={"publish": fewer}))
    shown: list[bool] = []
    real = LocalStore.create

    def create(self: LocalStore, path: str, data: bytes) -> None:
        real(self, path, data)
        shown.append(bool(project.check()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "create", create)
        promote(shorter)
    assert shown == [True]
    assert index(project)["state"]["valid_days"] == 5
    with days_later(6), pytest.raises(Stale):
        project.check()


def test_renewing_changes_nothing_but_the_date(project: Project) -> None:
    before, log = index(project), sorted((project.store / "log").iterdir())
    lines = renew(project)
    assert lines[0] == f"store    {before['state']['store']}, 3 entries in its log"
    assert sorted((project.store / "log").iterdir()) == log
    assert index(project)["state"] == before["state"]


def test_an_index_that_has_expired_is_renewed(project: Project) -> None:
    with days_later(40):
        renew(project)
        assert index(project)["expires"]


def test_people_are_told_in_time(project: Project, said: list[str]) -> None:
    with days_later(15):
        releases.releases(project.settings, project.workspace, to=None, as_json=True)
        assert not [line for line in said if "renew-store" in line]
    with days_later(21):
        releases.releases(project.settings, project.workspace, to=None, as_json=True)
    assert [line for line in said if "only: `./inv renew-store` renews it" in line]


# stores of before


def test_a_store_of_before_is_read_and_said_to_have_no_date(project: Project, said: list[str]) -> None:
    before_ids(project)
    assert "without a date" in project.check()[0]
    assert [line for line in said if "its index has no date" in line]
    promoted = releases.releases(project.settings, project.workspace, to=None, as_json=False)
    assert any(" 2 " in line for line in promoted)


@pytest.mark.parametrize("way", ["renew", "promote", "publish"])
def test_a_store_of_before_is_carried_over(project: Project, way: str, tmp_path: Path) -> None:
    before_ids(project)
    project.check()
    if way == "renew":
        renew(project)
    elif way == "promote":
        promote(project)
    else:
        project.publish("3")
    said = index(project)
    assert (said["format"], said["state"]["valid_days"], len(said["state"]["store"])) == (2, 30, 32)
    assert "good until" in project.check()[0]
    before = said["state"]["store"]
    renew(project)
    assert index(project)["state"]["store"] == before


def test_a_publisher_that_was_killed_while_it_carried_over_leaves_what_can_be_read(project: Project) -> None:
    before_ids(project)
    shown: list[bool] = []
    real = LocalStore.create

    def create(self: LocalStore, path: str, data: bytes) -> None:
        real(self, path, data)
        shown.append(bool(project.check()))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "create", create)
        with pytest.raises(KeyboardInterrupt):
            renew(project)
    assert shown == [True]
    renew(project)
    project.check()


def test_a_program_of_before_refuses_an_index_of_now(project: Project) -> None:
    """It would go on from it, and write one without a date. What it reads of an index is this."""
    said = index(project)
    with pytest.raises(KeyError):
        {i: {c: tuple(vs) for c, vs in cs.items()} for i, cs in said["channels"].items()}


def test_an_index_of_a_program_to_come(project: Project) -> None:
    said = index(project)
    sign(project, ledger.INDEX, json.dumps({**said, "format": 3}))
    with pytest.raises(Broken, match="is of format 3, and this program knows 1 and 2") as caught:
        project.check()
    assert "newer version" in (caught.value.hint or "")


def test_a_log_that_names_two_stores(project: Project) -> None:
    entry = {
        "sequence": 4, "previous": head(project), "action": "renew", "image": "", "version": "", "who": "x",
        "when": "now", "store": "0" * 32,
    }  # fmt: skip
    sign(project, ledger.path_of(4), files.canonical(entry))
    with pytest.raises(Broken, match=r"00000004\.json\.asc is of the store 0{32}, and the log is of"):
        project.check()


@pytest.mark.parametrize("days", [0, -1, "30", 1e9, True])
def test_days_that_are_none(project: Project, days: object) -> None:
    entry = {
        "sequence": 4, "previous": head(project), "action": "renew", "image": "", "version": "", "who": "x",
        "when": "now", "valid_days": days,
    }  # fmt: skip
    sign(project, ledger.path_of(4), files.canonical(entry))
    with pytest.raises(Broken, match="is no number of days"):
        project.check()
