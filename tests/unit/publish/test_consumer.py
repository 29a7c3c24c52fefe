"""What someone with the public key alone notices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foundry import files, gpg
from foundry.errors import FoundryError
from foundry.gpg import BadSignature
from foundry.publish import consumer, flow, ledger
from foundry.publish.consumer import Stale
from foundry.publish.ledger import Broken
from foundry.publish.session import session
from foundry.publish.stores import Missing
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


def version(project: Project, name: str) -> Path:
    return project.store / "images" / NAME / "2" / name


def flip(path: Path, at: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def resign(project: Project, path: Path, text: str) -> None:
    """Put a text in place that another key has signed."""
    other = gpg.throw_away(project.workspace.build / "other", "Somebody else")
    path.write_text(other.clearsign(text, project.workspace.build), encoding="utf-8")


def plain(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE")[0]


def test_all_belongs_together(project: Project, tmp_path: Path) -> None:
    lines = project.check("candidate", keep=tmp_path / "kept")
    assert lines[1].startswith(f"version  {NAME} 2, built ")
    assert lines[5].startswith("verdict  2 of 2 checks passed")
    assert (tmp_path / "kept" / f"{NAME}-2.qcow2").read_text() == "disk of 2\n" * 100
    assert project.check("stable")[1].startswith(f"version  {NAME} 1, ")
    assert project.check("2") == lines[:6]


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


def _verdict_of_another(project: Project) -> None:
    shutil.copyfile(project.store / "images" / NAME / "1" / "verdict.json", version(project, "verdict.json"))


def _sums_of_another(project: Project) -> None:
    for name in ("SHA256SUMS", "SHA256SUMS.gpg"):
        shutil.copyfile(project.store / "images" / NAME / "1" / name, version(project, name))


def _sums_by_another_key(project: Project) -> None:
    other = gpg.throw_away(project.workspace.build / "other", "Somebody else")
    version(project, "SHA256SUMS.gpg").unlink()
    other.detach(version(project, "SHA256SUMS"), version(project, "SHA256SUMS.gpg"))


def _moved_pointer(project: Project) -> None:
    path = project.store / "index.asc"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"candidate": [\n    "1",\n    "2"', '"candidate": [\n    "2",\n    "1"'))
    assert path.read_text(encoding="utf-8") != text


def _index_by_another_key(project: Project) -> None:
    resign(project, project.store / "index.asc", plain(project.store / "index.asc"))


def _unsigned_index(project: Project) -> None:
    path = project.store / "index.asc"
    path.write_text(plain(path), encoding="utf-8")


def _entry_by_another_key(project: Project) -> None:
    resign(project, project.store / ledger.path_of(2), plain(project.store / ledger.path_of(2)))


def _entries_swapped(project: Project) -> None:
    one, two = (project.store / ledger.path_of(n) for n in (1, 2))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _entry_taken_out(project: Project) -> None:
    (project.store / ledger.path_of(3)).unlink()


def _truncated(project: Project) -> None:
    path = version(project, f"{NAME}-2.qcow2")
    path.write_bytes(path.read_bytes()[:-1])


TAMPERINGS: list[tuple[Callable[[Project], None], type[FoundryError], str]] = [
    (lambda p: flip(version(p, f"{NAME}-2.qcow2")), Broken, "qcow2 is not what SHA256SUMS says"),
    (lambda p: flip(version(p, "manifest.json")), Broken, "manifest.json is not what"),
    (lambda p: flip(version(p, "verdict.json")), Broken, "verdict.json is not what"),
    (lambda p: flip(version(p, "verdict.xml"), 3), Broken, "verdict.xml is not what"),
    (lambda p: flip(version(p, "SHA256SUMS")), Broken, "is not the one that the index names"),
    (lambda p: flip(version(p, "SHA256SUMS.gpg")), BadSignature, "its signature does not hold"),
    (lambda p: flip(p.store / "index.asc", 200), BadSignature, "index.asc: its signature does not hold"),
    (lambda p: flip(p.store / ledger.path_of(1), 100), BadSignature, "00000001.json.asc: its signature"),
    (_verdict_of_another, Broken, "verdict.json is not what"),
    (_sums_of_another, Broken, "is not the one that the index names"),
    (_sums_by_another_key, BadSignature, "does not hold"),
    (_moved_pointer, BadSignature, "index.asc"),
    (_index_by_another_key, BadSignature, "index.asc"),
    (_unsigned_index, BadSignature, "index.asc"),
    (_entry_by_another_key, BadSignature, "00000002"),
    (_entries_swapped, Broken, "does not follow"),
    (_entry_taken_out, Broken, "not what its log leads to"),
    (_truncated, Broken, "qcow2 is not what"),
    (lambda p: version(p, "verdict.json").unlink(), Missing, "verdict.json"),
    (lambda p: version(p, f"{NAME}-2.qcow2").unlink(), Missing, "qcow2"),
]


@pytest.mark.parametrize(("change", "error", "why"), TAMPERINGS)
def test_tampering_is_noticed(
    project: Project, change: Callable[[Project], None], error: type[FoundryError], why: str, tmp_path: Path
) -> None:
    change(project)
    with pytest.raises(error, match=why):
        project.check("candidate", keep=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


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

    monkeypatch.setattr("foundry.publish.consumer.datetime", Later)
    with pytest.raises(Stale, match="its index was good until"):
        project.check()


def test_a_skipped_check_is_noticed_even_where_its_publisher_has_signed_it(project: Project) -> None:
    """Who publishes by other means than this program may have signed what it would refuse."""
    with session(project.settings, project.workspace, None) as open_:
        facts = json.loads(version(project, "verdict.json").read_text())
        facts["outcomes"][0]["outcome"] = "skipped"
        files.write_json(version(project, "verdict.json"), facts)
        lines = [
            f"{files.sha256(p)}  {p.name}\n"
            for p in sorted(version(project, "x").parent.iterdir())
            if not p.name.startswith("SHA256")
        ]
        files.write(version(project, "SHA256SUMS"), "".join(lines))
        version(project, "SHA256SUMS.gpg").unlink()
        open_.key.detach(version(project, "SHA256SUMS"), version(project, "SHA256SUMS.gpg"))
        sums = files.sha256(version(project, "SHA256SUMS"))
        open_.append("publish", NAME, "2", channel="candidate", before="2", sums=sums)
        open_.show()
    with pytest.raises(Broken, match="does not say that every check has passed"):
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
