"""The benchmark: what it builds in which order and where, what it writes down, and what it leaves behind."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foundry import archive, bench, bench_publish, build, config, log, run, verify
from foundry.errors import CommandFailed, ConfigError, FoundryError
from foundry.machine import kvm
from foundry.workspace import Workspace

PROJECT = Path(__file__).parents[2]
SOURCES = ("debian/control", "foundry/x.py", "patroni_node/cli.py", ".git/config", ".venv/x", "build/pool/x.deb")
HOST = {"cpu": "Z80", "cpus": "2", "kernel": "6.1", "system": "Debian 12", "qemu": "QEMU emulator version 7.2.0"}


@dataclass
class Seen:
    """How the fakes were called."""

    builds: list[tuple[Workspace, dict[str, Any], str]] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    size: int = 200


@pytest.fixture
def cfg() -> config.Config:
    return config.load(PROJECT / "foundry.yml")


@pytest.fixture
def seen(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    for name in SOURCES:
        (workspace.root / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / name).write_text("pass\n")

    def fake_build(settings: config.Config, place: Workspace, **options: Any) -> Any:
        assert run._log_dir == place.logs
        assert place.logs.is_dir()
        found.builds.append((place, options, (place.node_program / "cli.py").read_text()))
        names = {f.relative_to(place.root).as_posix() for f in place.root.rglob("*") if f.is_file()}
        assert place.root == workspace.root or names == {"debian/control", "foundry/x.py", "patroni_node/cli.py"}
        if len(found.builds) == 3:
            log.reused("base", "no input changed")
        else:
            with log.stage("base", "first build"):
                pass
        kernel, main = place.stage("base") / "key" / "vmlinuz", place.images / "x.qcow2"
        for path in (kernel, main):
            path.parent.mkdir(parents=True, exist_ok=True)
        kernel.touch()
        main.write_bytes(b"." * found.size)
        return SimpleNamespace(release=SimpleNamespace(main=main))

    def fake_run(args: list[str], **_: Any) -> None:
        found.plain = args

    packages = SimpleNamespace(consul=Path("consul.deb"), line=lambda: "deb copy:/repository ./")
    monkeypatch.setattr(build, "build_image", fake_build)
    monkeypatch.setattr(archive, "build", lambda *_, offline: packages if offline else None)
    monkeypatch.setattr(run, "run", fake_run)
    monkeypatch.setattr(verify, "host_description", lambda: HOST)
    monkeypatch.setattr(kvm, "accelerator", lambda *_: "tcg")
    monkeypatch.setattr(bench, "SPACE_NEEDED", 0)
    return found


def test_cold_then_changed_then_unchanged(cfg: config.Config, workspace: Workspace, seen: Seen) -> None:
    result = bench.run(cfg, workspace)
    assert [p.name for p in result.phases] == [bench.PEER, "cold", "patroni_node changed", "nothing changed"]
    assert [options for _, options, _ in seen.builds] == [{"image": "debian-12", "verify": False}] * 3
    cold, warm, same = (place for place, _, _ in seen.builds)
    assert cold.root == workspace.root
    assert warm.root == same.root != workspace.root
    assert cold.build == warm.build == same.build != workspace.build
    assert [text.count("benchmark") for _, _, text in seen.builds] == [0, 1, 1]


def test_the_sources_stay_as_they_are_and_only_logs_and_numbers_are_left(
    cfg: config.Config, workspace: Workspace, seen: Seen
) -> None:
    before = {name: (workspace.root / name).read_text() for name in SOURCES}
    result = bench.run(cfg, workspace)
    assert {name: (workspace.root / name).read_text() for name in SOURCES} == before
    assert list(workspace.work.iterdir()) == []
    assert not seen.builds[0][0].build.exists()
    assert (workspace.build / "logs" / f"{workspace.run_id}-cold").is_dir()
    assert result.report is not None
    written = json.loads(result.report.read_text())
    assert written["machine"]["processor"] == "2 x Z80"
    assert written["machine"]["guests"] == "tcg"
    assert written["size"] == 200
    assert [p["name"] for p in written["phases"]] == [p.name for p in result.phases]
    assert written["phases"][1]["stages"][0]["outcome"] == "built"


def test_the_peer_gets_the_same_packages_from_the_same_repository(
    cfg: config.Config, workspace: Workspace, seen: Seen
) -> None:
    bench.run(cfg, workspace)
    include = next(word for word in seen.plain if word.startswith("--include="))
    names = include.removeprefix("--include=").split(",")
    assert {"postgresql-15", "consul", "linux-image-cloud-amd64"} <= set(names)
    assert not [name for name in names if name.startswith("?")]
    assert seen.plain[-3] == "bookworm"
    assert seen.plain[-2].endswith(".tar")
    assert seen.plain[-1] == "deb copy:/repository ./"


def test_a_build_that_fails_ends_the_benchmark_and_leaves_no_numbers(
    cfg: config.Config, workspace: Workspace, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CommandFailed("packer exited 1")

    monkeypatch.setattr(build, "build_image", fail)
    with pytest.raises(CommandFailed):
        bench.run(cfg, workspace)
    assert list(workspace.work.iterdir()) == []
    assert not workspace.stage("benchmark").exists()


def test_it_does_not_measure_beside_another_run(cfg: config.Config, workspace: Workspace, seen: Seen) -> None:
    workspace.build.mkdir(exist_ok=True)
    with workspace.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FoundryError, match="another run"):
            bench.run(cfg, workspace)
    assert seen.builds == []


def numbers(*, cold: float, size: int) -> bench.Benchmark:
    stages = [log.StageRecord("base", "built", "", 60.0), log.StageRecord("archive", "reused")]
    phases = [
        bench.Phase(bench.PEER, 50.0, None, [log.StageRecord(bench.PEER, "built", "", 50.0)]),
        bench.Phase("cold", cold, bench.COLD_SECONDS, stages),
    ]
    return bench.Benchmark("debian-12", "2026-01-01", phases, size, {"memory": "8 GB"}, Path("numbers.json"))


def test_the_table() -> None:
    lines = numbers(cold=100.0, size=230_000_000).summary()
    rows = [line.split() for line in lines]
    assert ["plain", "mmdebstrap", "50.0", "1.00", "-"] in rows
    assert ["cold", "100.0", "2.00", "150", "s"] in rows
    assert ["base", "60.0", "1.20"] in rows
    assert ["image", "230.0", "MB", "240.0", "MB"] in rows
    assert ["memory", "8", "GB"] in rows
    assert lines[-1].endswith("numbers.json")
    assert not [row for row in rows if "archive" in row or "OVER" in row]


def test_several_runs_are_told_by_the_median_and_by_what_lies_around_it(
    cfg: config.Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([numbers(cold=cold, size=1) for cold in (150.0, 100.0, 110.0)])
    monkeypatch.setattr(bench, "run", lambda *_: next(found))
    rows = [line.split() for line in bench.benchmark(cfg, workspace, only="build", runs=3)]
    assert ["cold", "110.0", "2.20", "2.00", "3.00"] in rows
    assert ["base", "60.0", "1.20", "1.20", "1.20"] in rows
    assert [row[-2:] for row in rows].count(["3", "runs"]) == 1
    assert next(found, None) is None


def test_no_run_is_too_few(cfg: config.Config, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="--runs: must be 1 or more, not 0"):
        bench.benchmark(cfg, workspace, runs=0)


def test_what_is_over_its_limit_is_marked() -> None:
    lines = numbers(cold=151.0, size=301_000_000).summary()
    assert [line.split()[0] for line in lines if line.endswith("OVER")] == ["cold", "image"]


def test_only_one_part_is_measured_where_only_one_is_wanted(
    cfg: config.Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "run", lambda *_: SimpleNamespace(summary=lambda: ["builds"]))
    monkeypatch.setattr(bench, "clusters", lambda *_: ["clusters"])
    monkeypatch.setattr(bench, "publishing", lambda *_: ["publishing"])
    monkeypatch.setattr(bench_publish, "ready", lambda *_: None)
    assert bench.benchmark(cfg, workspace, only="build") == ["builds"]
    assert bench.benchmark(cfg, workspace, only="cluster") == ["clusters"]
    assert bench.benchmark(cfg, workspace, only="publish") == ["publishing"]
    assert bench.benchmark(cfg, workspace) == ["builds", "", "clusters", "", "publishing"]
    with pytest.raises(ConfigError, match="--only: all is not one of build, cluster, publish"):
        bench.benchmark(cfg, workspace, only="all")
