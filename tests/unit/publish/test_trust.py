"""What is noticed of a store that is signed by its publisher's own key, and is not what it was, or not as new."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from foundry import files
from foundry.errors import CorruptArtifact
from foundry.publish import consumer, ledger, releases
from foundry.publish.ledger import Broken
from foundry.publish.local import LocalStore
from foundry.publish.memory import Fork, Stale
from tests.unit.publish.changed_stores import (
    away,
    before_ids,
    days_later,
    elsewhere,
    head,
    promote,
    put,
    renew,
)
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


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
