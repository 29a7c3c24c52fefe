"""What someone with the public key alone notices."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foundry.errors import FoundryError
from foundry.publish import consumer
from foundry.publish.ledger import Broken
from foundry.publish.local import LocalStore
from foundry.publish.memory import Stale
from foundry.publish.stores import Missing
from tests.unit.publish.publishing import NAME, Project, flip

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


def test_all_belongs_together(project: Project, tmp_path: Path) -> None:
    lines = project.check("candidate", keep=tmp_path / "kept")
    assert lines[1].startswith(f"version  {NAME} 2, built ")
    assert lines[4:7] == [
        "packages in Packages: only such as are in the image, by name, version and sha256",
        "tarball  these packages, the same index in each form, signed, and what this program writes; no more",
        f"apt      {NAME}-candidate: the store has none",
    ]
    assert lines[7].startswith("verdict  2 of 2 checks passed")
    assert lines[8].startswith("unseen   packages in apt/pool")
    assert (tmp_path / "kept" / f"{NAME}-2.qcow2").read_text() == "disk of 2\n" * 100
    assert project.check("stable")[1].startswith(f"version  {NAME} 1, ")
    assert project.check("2") == lines[:9]


def test_nothing_is_fetched_without_a_limit(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums and their signature are read, which has one; all else is as large as what is signed says."""
    asked: dict[str, int | None] = {}
    real = LocalStore.download

    def download(self: LocalStore, path: str, target: Path, limit: int | None = None) -> None:
        asked[path.rpartition("/")[2]] = limit
        real(self, path, target, limit)

    monkeypatch.setattr(LocalStore, "download", download)
    project.check()
    folder = project.store / "images" / NAME / "2"
    assert asked.keys() == {p.name for p in folder.iterdir()} - {"SHA256SUMS", "SHA256SUMS.gpg"}
    assert None not in asked.values()
    assert asked[f"{NAME}-2.qcow2"] == (folder / f"{NAME}-2.qcow2").stat().st_size
    tarball = folder / "patroni-node-2-offline.tar"
    assert tarball.stat().st_size <= (asked[tarball.name] or 0) < 4 << 20


def test_a_folder_that_is_there_is_left_alone(project: Project, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine").write_text("mine")
    with pytest.raises(FoundryError, match=r"--keep: .*home is there already"):
        project.check("candidate", keep=tmp_path / "home")
    assert (tmp_path / "home" / "mine").read_text() == "mine"


def test_a_channel_that_is_none(project: Project) -> None:
    with pytest.raises(FoundryError, match="no channel and no version beta") as caught:
        project.check("beta")
    assert caught.value.hint == "channels: candidate, stable"


def test_a_folder_that_is_no_store(project: Project) -> None:
    shutil.rmtree(project.store)
    with pytest.raises(FoundryError, match="is no store"):
        project.check()


def test_an_old_index_that_is_put_back_changes_nothing(project: Project) -> None:
    """The log decides: so it is, too, where a publisher was killed before it came to the index."""
    old = (project.store / "index.asc").read_bytes()
    project.publish("3")
    (project.store / "index.asc").write_bytes(old)
    assert project.check()[1].startswith(f"version  {NAME} 3, ")


def test_an_old_store_is_noticed_by_who_has_seen_the_new_one(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.store, tmp_path / "old")
    project.publish("3")
    project.check()
    shutil.rmtree(project.store)
    (tmp_path / "old").rename(project.store)
    with pytest.raises(Stale, match="has served 4 entries before, and serves 3"):
        project.check()


def test_an_old_store_is_noticed_by_anyone_when_it_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.at(tmp_path, valid_days=10)
    project.publish("1")
    project.check()

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=11)

    monkeypatch.setattr("foundry.publish.trust.datetime", Later)
    with pytest.raises(Stale, match="its index was good until"):
        project.check()


def test_a_lab_gets_what_a_channel_points_at(project: Project) -> None:
    disk = consumer.published(project.settings, project.workspace, "stable")
    assert disk.read_text() == "disk of 1\n" * 100
    # Fetched once: what is served is not needed again, but the index is.
    shutil.rmtree(project.store / "images")
    assert consumer.published(project.settings, project.workspace, "stable") == disk
    with pytest.raises(Missing):
        consumer.published(project.settings, project.workspace, "candidate")
    flip(disk, 5)
    with pytest.raises(Broken, match="was changed after it was fetched"):
        consumer.published(project.settings, project.workspace, "stable")


def test_a_lab_of_a_name_that_is_none(tmp_path: Path) -> None:
    project = Project.at(tmp_path)
    with pytest.raises(FoundryError, match=r"no image unstable in foundry\.yml, and nothing is published") as caught:
        consumer.published(project.settings, project.workspace, "unstable")
    assert "images: debian-12" in (caught.value.hint or "")
    project.publish("1", "stable")
    with pytest.raises(FoundryError, match="no channel and no version unstable"):
        consumer.published(project.settings, project.workspace, "unstable")
