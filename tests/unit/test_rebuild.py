"""What a rebuild fetches, and how it compares what came out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foundry import apt, files, listing, log, rebuild, recorded
from foundry.errors import ConfigError, FetchError
from foundry.image import Release
from foundry.workspace import Workspace
from tests.unit import rebuild_parts as parts

WHEEL = "patroni-4.1.5-py3-none-any.whl"


@pytest.fixture
def value(workspace: Workspace) -> dict[str, Any]:
    parts.project(workspace)
    return parts.manifest(workspace)


@pytest.fixture
def found(value: dict[str, Any], workspace: Workspace) -> recorded.Recorded:
    return recorded.load(parts.written(value, workspace.root), "", [], workspace)


class Mirror:
    """An archive that holds these packages and no others."""

    holds: Sequence[str] = ()

    def __init__(self, workspace: Workspace, sources: object, *, expired: bool) -> None:
        assert expired
        self.workspace = workspace

    def update(self) -> None: ...

    def obtain(self, packages: Sequence[apt.Package]) -> list[apt.Package]:
        parts.fill(self.workspace, *[p.name for p in packages if p.name in self.holds])
        return []


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> type[Mirror]:
    monkeypatch.setattr(apt, "sources", lambda *a: [])
    monkeypatch.setattr(apt, "Resolver", Mirror)
    monkeypatch.setattr(Mirror, "holds", ())
    return Mirror


def test_what_is_in_the_pool_is_asked_of_nobody(
    found: recorded.Recorded, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "sources", lambda *a: pytest.fail("an archive was asked"))
    parts.fill(workspace, "libc6", "gcc")
    files.write(workspace.wheels / WHEEL, "wheel")
    pinned = rebuild.prepare(found, workspace, offline=False)
    assert ([p.name for p in pinned.base], [p.name for p in pinned.buildd]) == (["libc6"], ["gcc"])
    assert pinned.consul is None


def test_what_the_pool_lacks_is_fetched(found: recorded.Recorded, workspace: Workspace, mirror: type[Mirror]) -> None:
    mirror.holds = ("gcc",)
    parts.fill(workspace, "libc6")
    files.write(workspace.wheels / WHEEL, "wheel")
    rebuild.prepare(found, workspace, offline=False)
    assert (workspace.pool / "gcc_1%3a2.0-1_amd64.deb").read_text() == "gcc 1:2.0-1"


def test_all_that_cannot_be_had_is_named_at_once(
    found: recorded.Recorded, workspace: Workspace, mirror: type[Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> Path:
        raise FetchError("the index has no such file")

    monkeypatch.setattr(rebuild.wheels, "_attempts", nothing)
    with pytest.raises(FetchError, match="3 recorded files are not kept here, and not given by the") as caught:
        rebuild.prepare(found, workspace, offline=False)
    names = [line.split()[0] for line in str(caught.value.details).splitlines()]
    assert names == ["gcc", "libc6", WHEEL]
    assert "--set archive.mirror=" in str(caught.value.hint) and "2026-11-24" in str(caught.value.hint)
    assert not (workspace.wheels / "known.json").exists()


def test_an_archive_that_does_not_answer_hides_no_name(
    found: recorded.Recorded, workspace: Workspace, mirror: type[Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: Mirror) -> None:
        raise FetchError("the archive did not answer")

    monkeypatch.setattr(mirror, "update", silent)
    files.write(workspace.wheels / WHEEL, "wheel")
    with pytest.raises(FetchError, match="2 recorded files") as caught:
        rebuild.prepare(found, workspace, offline=False)
    assert [line.split()[0] for line in str(caught.value.details).splitlines()] == ["gcc", "libc6"]


def test_other_bytes_are_never_used(found: recorded.Recorded, workspace: Workspace) -> None:
    parts.fill(workspace, "libc6", "gcc")
    files.write(workspace.pool / "gcc_1%3a2.0-1_amd64.deb", "evil")
    files.write(workspace.wheels / WHEEL, "evil")
    with pytest.raises(FetchError, match="2 recorded files are not kept here, and not given with --offline") as caught:
        rebuild.prepare(found, workspace, offline=True)
    assert [line.split()[0] for line in str(caught.value.details).splitlines()] == ["gcc", WHEEL]
    assert not (workspace.pool / "gcc_1%3a2.0-1_amd64.deb").exists()


def test_other_sources_are_refused_before_anything_is_fetched(found: recorded.Recorded, workspace: Workspace) -> None:
    files.write(workspace.debian / "rules", "changed")
    with pytest.raises(ConfigError, match="this checkout is not what"):
        rebuild.prepare(found, workspace, offline=False)
    assert not workspace.pool.exists()


def compared(found: recorded.Recorded, new: dict[str, Any], tmp_path: Path) -> rebuild.Comparison:
    return rebuild.compare(found, Release(tmp_path, new), Workspace.at(tmp_path))


def test_the_same_is_equal(found: recorded.Recorded, value: dict[str, Any], tmp_path: Path) -> None:
    log.reused("base", "no input changed")
    result = compared(found, value, tmp_path)
    assert result.equal and result.tools == ()
    assert result.summary()[0] == "rebuilt  debian-12 20261124-da0f5f2a"
    assert f"         base disk: equal (reused), sha256 {parts.A}" in result.summary()
    result.insist(tmp_path)


def test_another_golden_disk_is_told_and_is_no_failure(
    found: recorded.Recorded, value: dict[str, Any], tmp_path: Path
) -> None:
    value["files"][0]["sha256"] = parts.A
    result = compared(found, value, tmp_path)
    assert result.equal
    assert f"         golden disk: may differ, recorded {parts.C}, rebuilt {parts.A}" in result.summary()
    assert "not compared" in result.summary()[-1]


@pytest.mark.parametrize("changed", [(), ("/etc/passwd",)])
def test_a_disk_beside_the_manifest_is_compared_file_by_file(
    changed: tuple[str, ...],
    value: dict[str, Any],
    tmp_path: Path,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = tmp_path / value["files"][0]["name"]
    disk.write_text("disk")
    value["files"][0]["sha256"] = files.sha256(disk)
    found = recorded.load(parts.written(value, tmp_path), "", [], workspace)
    plain = listing.File("regular", "0644", "0:0", "1", 1, "", "x")
    new = copy.deepcopy(value)
    new["files"] = [{"name": "new.qcow2", "sha256": parts.A}]
    shown = {disk.name: {"/etc/passwd": plain}, "new.qcow2": {"/etc/passwd": plain}}
    for path in changed:
        shown["new.qcow2"][path] = replace(plain, content="y")
    monkeypatch.setattr(listing, "of", lambda path, scratch: shown[path.name])
    result = compared(found, new, tmp_path)
    assert result.equal is not bool(changed)
    assert result.rows[-1].detail == ("/etc/passwd: content" if changed else "1 of them")


def _changed(value: dict[str, Any], which: str) -> None:
    if which == "patroni-node_1_all.deb":
        value["inputs"]["debs"][1]["sha256"] = parts.C
    elif which == "base disk":
        value["inputs"]["base"]["sha256"] = parts.C
    elif which == "repository metadata":
        value["rebuild"]["repository"] = parts.C
    elif which == "packages":
        value["packages"].append(parts.package("vim"))
    else:
        value["wheels"][0]["sha256"] = parts.C


@pytest.mark.parametrize("which", ["patroni-node_1_all.deb", "base disk", "repository metadata", "packages", "wheels"])
def test_each_other_difference_is_a_failure(
    which: str, found: recorded.Recorded, value: dict[str, Any], tmp_path: Path
) -> None:
    new = copy.deepcopy(value)
    _changed(new, which)
    new["tools"]["mke2fs"] = "1.47.2"
    result = compared(found, new, tmp_path)
    result.write(tmp_path, found)
    with pytest.raises(rebuild.NotReproduced) as caught:
        result.insist(tmp_path)
    assert caught.value.code == 16
    lines = str(caught.value.details).splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{which}: DIFFERS, ")
    assert "mke2fs (1.47.0 then, 1.47.2 now)" in str(caught.value.hint)
    kept = files.read_json(tmp_path / "rebuild.json")
    assert (kept["equal"], kept["manifest"]) == (False, found.sha256)
    assert [row["name"] for row in kept["parts"] if row["required"] and not row["equal"]] == [which]
