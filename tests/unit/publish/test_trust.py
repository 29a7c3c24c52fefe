"""What is noticed of a store that is signed by its publisher's own key, and is not what it was, or not as new."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foundry import files, gpg
from foundry.errors import CorruptArtifact
from foundry.publish import consumer, flow, ledger, releases
from foundry.publish.ledger import Broken
from foundry.publish.local import LocalStore
from foundry.publish.memory import Fork, Stale
from tests.unit.publish.publishing import NAME, Project
from tests.unit.publish.signed_again import publisher

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


def put(source: Path, project: Project) -> None:
    """Put other files in place of a project's store."""
    shutil.rmtree(project.store)
    shutil.copytree(source, project.store)


def away(project: Project, target: Path) -> Path:
    """A copy of its store as it is now."""
    return Path(shutil.copytree(project.store, target))


def elsewhere(project: Project, folder: Path, **publish: Any) -> Project:
    """The same store and key at a machine that has seen nothing yet."""
    found = project.copy(folder, **publish)
    found.workspace.seen.unlink(missing_ok=True)
    return found


def renew(project: Project, **options: Any) -> list[str]:
    return flow.renew(project.settings, project.workspace, to=None, **options)


def promote(project: Project, version: str = "2") -> None:
    flow.promote(project.settings, project.workspace, version, channel="stable", to=None)


def head(project: Project) -> str:
    last = max((project.store / "log").iterdir())
    return hashlib.sha256(last.read_bytes()).hexdigest()


def index(project: Project) -> dict[str, Any]:
    text = gpg.opened(project.store / ledger.INDEX, project.key(), project.workspace.build)
    found: dict[str, Any] = json.loads(text)
    return found


def sign(project: Project, path: str, text: str) -> bytes:
    data = publisher(project).clearsign(text, project.workspace.build).encode()
    (project.store / path).write_bytes(data)
    return data


def before_ids(project: Project, expires: str | None = None) -> None:
    """Write log and index as a program did that knew neither ids nor a date by default."""
    last, state = "", ledger.State()
    for path in sorted((project.store / "log").iterdir()):
        said = json.loads(gpg.opened(path, project.key(), project.workspace.build))
        entry = {k: v for k, v in {**said, "previous": last}.items() if k not in ("store", "valid_days")}
        data = sign(project, f"log/{path.name}", files.canonical(entry) + "\n")
        last = hashlib.sha256(data).hexdigest()
        state = state.after(ledger.Entry(**entry), last)
    sign(project, ledger.INDEX, ledger.index_text(state, datetime.now(UTC).isoformat(), expires))


@contextmanager
def days_later(days: int) -> Iterator[None]:
    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foundry.publish.trust.datetime", Later)
        yield


# forks, and other stores of the same key


def test_a_longer_log_with_another_history(project: Project, tmp_path: Path) -> None:
    fork = away(project, tmp_path / "fork")
    project.publish("3")
    project.check()
    put(fork, project)
    other = elsewhere(project, tmp_path / "other")
    for version in ("4", "5", "6"):
        other.publish(version)
    put(other.store, project)
    with pytest.raises(Fork, match="entry 4 of its log is another one than it was before"):
        project.check()
    with pytest.raises(Fork):
        consumer.published(project.settings, project.workspace, "candidate")


def test_another_store_of_the_same_key_at_the_same_url(project: Project, tmp_path: Path) -> None:
    """Such as the one where releases are tried before."""
    project.check()
    staging = Project.at(tmp_path / "staging")
    for version in ("1", "2", "3", "4", "5"):
        staging.publish(version)
    put(staging.store, project)
    with pytest.raises(Fork, match=r"it was the store [0-9a-f]{32} before, and is the store [0-9a-f]{32} now"):
        project.check()


def test_another_store_that_says_nothing_of_itself(project: Project) -> None:
    """A log of before ids, of any length."""
    project.check()
    before_ids(project)
    with pytest.raises(Fork, match="and is one without an id now"):
        project.check()


def test_a_store_under_another_url_is_known_by_its_id(project: Project, tmp_path: Path) -> None:
    old = away(project, tmp_path / "mirror")
    project.publish("3")
    project.check()
    with pytest.raises(Stale, match="has served 4 entries before, and serves 3 now"):
        project.check(url=str(old))


def test_what_is_there_may_be_accepted_by_its_name(project: Project, tmp_path: Path) -> None:
    old = away(project, tmp_path / "old")
    project.publish("3")
    project.check()
    put(old, project)
    with pytest.raises(Stale) as caught:
        project.check()
    name = head(project)[:16]
    assert f"--accept {name}" in (caught.value.hint or "")
    for other in ("0" * 16, name[:4], ""):
        with pytest.raises(Broken, match="is not what is there"):
            project.check(accept=other)
    assert project.check(accept=name)[1].startswith(f"version  {NAME} 2, ")
    assert project.check()
    # What was seen before is not lost.
    said = files.read_json(project.workspace.seen)
    assert [r["sequence"] for keys in said["keys"].values() for r in keys["replaced"]] == [4]


# the memory


def test_a_memory_that_is_damaged_is_no_empty_one(project: Project) -> None:
    project.workspace.seen.write_text("{", encoding="utf-8")
    with pytest.raises(CorruptArtifact, match=r"seen\.json is damaged"):
        project.check()
    assert project.workspace.seen.read_text(encoding="utf-8") == "{"


def test_what_an_older_program_has_seen_is_taken_over(project: Project, tmp_path: Path) -> None:
    old = away(project, tmp_path / "old")
    project.publish("3")
    url = LocalStore(project.store).url
    name = hashlib.sha256(project.key().read_bytes() + url.encode()).hexdigest()
    seen = {name: {"sequence": 4, "head": head(project)}, "of another store": {"sequence": 1, "head": "x"}}
    files.write_json(project.workspace.seen, seen)
    now = away(project, tmp_path / "now")
    put(old, project)
    with pytest.raises(Stale, match="has served 4 entries before"):
        project.check()
    put(now, project)
    project.check()
    said = files.read_json(project.workspace.seen)
    assert said.keys() == {"keys", "of another store"}
    put(old, project)
    with pytest.raises(Stale):
        project.check()


# the publisher


def test_a_publisher_does_not_go_on_from_an_old_copy(project: Project, tmp_path: Path) -> None:
    old = away(project, tmp_path / "old")
    project.publish("3")
    put(old, project)
    before = {p: p.read_bytes() for p in project.store.rglob("*") if p.is_file()}
    for act in (lambda: promote(project), lambda: project.publish("4"), lambda: renew(project)):
        with pytest.raises(Stale, match="has served 4 entries before, and serves 3 now") as caught:
            act()
    assert {p: p.read_bytes() for p in project.store.rglob("*") if p.is_file()} == before
    name = head(project)[:16]
    assert f"renew-store --accept {name}" in (caught.value.hint or "")
    renew(project, accept=name)
    promote(project)
    assert project.check("stable")[1].startswith(f"version  {NAME} 2, ")


def test_a_publisher_does_not_go_on_from_a_fork_or_another_store(project: Project, tmp_path: Path) -> None:
    renew(project)
    staging = Project.at(tmp_path / "staging")
    for version in ("1", "2", "3", "4"):
        staging.publish(version)
    put(staging.store, project)
    with pytest.raises(Fork, match="it was the store"):
        promote(project)


def test_a_publisher_does_not_begin_anew_where_a_store_was(project: Project) -> None:
    renew(project)
    shutil.rmtree(project.store)
    with pytest.raises(Stale, match="has served 3 entries before, and serves 0 now") as caught:
        project.publish("3")
    assert "--accept empty" in (caught.value.hint or "")
    assert renew(project, accept="empty") == ["store    nothing is in it any more: `./inv publish` begins anew"]
    assert project.publish("3")[0] == f"image    {NAME} 3"


def test_a_publisher_that_comes_for_the_first_time_does_not_date_an_old_copy_anew(
    project: Project, said: list[str]
) -> None:
    project.workspace.seen.unlink()
    with days_later(31):
        with pytest.raises(
            Stale, match=r"its index was good until .*, and this machine has not seen it before"
        ) as caught:
            promote(project)
        assert f"--accept {head(project)[:16]}" in (caught.value.hint or "")
        renew(project, accept=head(project)[:16])
        promote(project)
    project.workspace.seen.unlink()
    promote(project, "1")
    assert [line for line in said if "sees it for the first time; the last entry: promote" in line]


def test_a_publisher_reads_the_whole_log(project: Project) -> None:
    """An index that is signed names the log's last entry, which alone would do to go on."""
    (project.store / ledger.path_of(1)).unlink()
    with pytest.raises(Broken, match="its index is not what its log leads to"):
        promote(project)


def test_releases_shows_what_is_there_and_says_what_is_wrong_with_it(
    project: Project, tmp_path: Path, said: list[str]
) -> None:
    old = away(project, tmp_path / "old")
    project.publish("3")
    put(old, project)
    lines = releases.releases(project.settings, project.workspace, to=None, as_json=False)
    assert any(line.startswith(f"{NAME}") or " 2 " in line for line in lines)
    assert [line for line in said if "not to be believed" in line and "has served 4 entries" in line]


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
