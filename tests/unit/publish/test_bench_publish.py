"""The benchmark of publishing: what it counts, what it says, and what it leaves behind. No time is compared here."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry import bench, bench_publish, files, lock
from foundry.bench_publish import Row
from foundry.errors import ConfigError
from foundry.publish.gate import Refused
from foundry.publish.local import LocalStore
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    found = Project.at(tmp_path)
    monkeypatch.setattr(bench, "machine", lambda *_: {"memory": "8 GB"})
    monkeypatch.setattr(bench_publish, "VERSIONS", 3)
    return found


def built(project: Project) -> Path:
    manifest = project.build("1")
    files.write_json(project.workspace.images / f"{NAME}.json", {"folder": manifest.parent.name})
    return manifest


def measured(project: Project) -> dict[str, Row]:
    (project.workspace.build / "scratch").mkdir()
    rows = bench_publish.measure(project.settings, project.workspace, project.workspace.build / "scratch")
    # What is sent has the name of what sends it.
    title, found = "", {}
    for row in rows:
        title = title if row.name.startswith(" ") else row.name
        found[title if title == row.name else f"{title}:{row.name.strip()}"] = row
    return found


def test_bytes_and_disks_are_counted(project: Project) -> None:
    built(project)
    rows = measured(project)
    assert rows["first publish:sent"].value == rows["first publish:sent"].other > 0
    for title in ("publish again", "promote", "rollback"):
        assert (rows[f"{title}:sent"].value, rows[f"{title}:sent"].limit) == (0, True)
        assert rows[title].value > 0 and rows[title].other > 0
    assert (rows["3 versions: disks sent"].value, rows["3 versions: disks sent"].other) == (3, 3)
    sent = rows["3 versions: disks sent:sent"]
    assert sent.other * 0.9 < sent.value < sent.other * 1.1
    assert rows["verify-release"].other > 0


def test_what_is_sent_again_is_counted_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    built(project)
    real = LocalStore.create

    def create(self: LocalStore, path: str, data: bytes) -> None:
        real(self, path, data)
        for disk in self.root.glob("images/*/*/*.qcow2"):
            (disk.parent / ".new").write_bytes(disk.read_bytes())
            (disk.parent / ".new").rename(disk)

    monkeypatch.setattr(LocalStore, "create", create)
    rows = measured(project)
    assert rows["3 versions: disks sent"].value == 1 + 2 + 3
    assert rows["promote:sent"].value == 3 * len("disk of 1\n" * 100)
    assert any(line.endswith("OVER") for line in bench_publish.table(list(rows.values())))


def test_the_table_and_what_stays(project: Project) -> None:
    manifest = built(project)
    before = {p: p.stat().st_ino for p in manifest.parent.iterdir()}
    lines = bench.publishing(project.settings, project.workspace)
    assert lines[0].split() == ["measured", "ratio", "beside"]
    assert lines[1].startswith("first publish ")
    assert "The 3 versions are one image under 3 names, made up for this run and removed after it." in lines
    assert "memory  8 GB" in lines
    report = Path(lines[-1].removeprefix("written  "))
    assert [row["name"] for row in files.read_json(report)][:2] == ["first publish", "  sent"]
    assert not list(project.workspace.work.iterdir())
    assert not project.store.exists()
    assert not project.workspace.publisher.exists()
    assert {p: p.stat().st_ino for p in manifest.parent.iterdir()} == before
    with lock.held(project.workspace, ""):
        pass


def test_without_an_image(project: Project) -> None:
    with pytest.raises(ConfigError, match="holds no image") as caught:
        bench.benchmark(project.settings, project.workspace, only="publish")
    assert "./inv build-image" in (caught.value.hint or "")


def test_an_image_that_is_not_proved(project: Project) -> None:
    project.build("1", image="0" * 64)
    files.write_json(project.workspace.images / f"{NAME}.json", {"folder": "1"})
    with pytest.raises(Refused, match="is not proved") as caught:
        bench.benchmark(project.settings, project.workspace)
    assert "./inv verify-image --manifest" in (caught.value.hint or "")
