"""What a build costs on this machine: cold, warm and unchanged, beside the plain way of making a root file system.

All is measured in one run and in a build folder of its own, so that nothing made before helps or disturbs it.
Clusters, publishing and peers have modules of their own: foundry/lab/figures.py, foundry/bench_publish.py,
foundry/bench_peers.py.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from foundry import (
    archive,
    bench_peers,
    bench_publish,
    bench_results,
    bench_verify,
    build,
    config,
    console,
    files,
    image,
    lock,
    log,
    verify,
)
from foundry import run as commands
from foundry.bench_results import COLD_SECONDS, PEER, UNCHANGED_SECONDS, WARM_SECONDS, Benchmark, Phase
from foundry.config import Config
from foundry.errors import ConfigError
from foundry.lab import disks, figures
from foundry.lab.plan import Plan
from foundry.machine import kvm
from foundry.peers import figure
from foundry.workspace import MEMORY, Workspace

SPACE_NEEDED = 6_000_000_000

T = TypeVar("T")


def benchmark(settings: Config, workspace: Workspace, *, only: str = "", runs: int = 1) -> list[str]:
    """Measure builds, clusters, publishing, or (only is empty) all three; peers or verify, by name. Returns the tables.

    runs: how many times builds are measured; of several, each line's median, least and most are told.
    Raises ConfigError, and what these do.
    """
    if runs < 1:
        raise ConfigError(f"--runs: must be 1 or more, not {runs}")
    parts: dict[str, Callable[[], list[str]]] = {
        "build": lambda: builds(settings, workspace, runs),
        "cluster": lambda: clusters(settings, workspace),
        "publish": lambda: publishing(settings, workspace),
    }
    # Peers fetches its tools, and takes longer than all others; verify has the newest image judged anew.
    named = {"peers": lambda: peers(settings, workspace), "verify": lambda: verification(settings, workspace)}
    if only and only not in parts | named:
        raise ConfigError(f"--only: {only} is not one of {', '.join(parts | named)}")
    if not only:
        # So that nobody waits for the other tables, and then gets none.
        bench_publish.ready(settings, workspace)
    tables = [(parts | named)[name]() for name in ([only] if only else parts)]
    return [line for table in tables for line in (*table, "")][:-1]


def builds(settings: Config, workspace: Workspace, runs: int) -> list[str]:
    """Measure builds as often as runs says. Returns the table."""
    found = [run(settings, workspace) for _ in range(runs)]
    return found[0].summary() if runs == 1 else bench_results.table_of_runs(found)


def clusters(settings: Config, workspace: Workspace) -> list[str]:
    """Measure clusters of the newest image; the numbers and plots are kept in build/benchmark/. Returns the table."""
    release = image.newest(workspace, config.pick_image(settings, None))
    disk = release.main.resolve()
    report = workspace.stage("benchmark") / f"cluster-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    kind = disk.suffix.lstrip(".")
    with _scratch(workspace) as folder:
        commands.keep_logs_in(workspace.logs)
        accelerator = disks.accelerator(settings, disk, kind, workspace)
        found = figures.measure(Plan("bench", str(disk), format=kind, accelerator=accelerator), workspace, folder)
        for plot in folder.glob("*.svg"):
            report.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plot, report / plot.name)
        files.write_json(report / "figures.json", figures.as_json(found))
        described = machine(settings, workspace)
    return [*figures.table(found), *console.table([("", ""), *described.items()]), "", f"written  {report}"]


def publishing(settings: Config, workspace: Workspace) -> list[str]:
    """Measure publishing of the newest image to a store of its own; the numbers are kept as JSON. Returns the table."""
    report = workspace.stage("benchmark") / f"publish-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    with _scratch(workspace) as folder:
        commands.keep_logs_in(workspace.logs)
        found = bench_publish.measure(settings, workspace, folder)
        files.write_json(report, bench_publish.as_json(found))
        described = machine(settings, workspace)
    return [*bench_publish.table(found), *console.table([("", ""), *described.items()]), "", f"written  {report}"]


def verification(settings: Config, workspace: Workspace) -> list[str]:
    """Measure a verification of the newest image; the numbers are kept as JSON. Returns the table."""
    report = workspace.stage("benchmark") / f"verify-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    commands.keep_logs_in(workspace.logs)
    found = bench_verify.measure(settings, workspace)
    files.write_json(report, bench_verify.as_json(found))
    described = machine(settings, workspace)
    return [*bench_verify.table(found), *console.table([("", ""), *described.items()]), "", f"written  {report}"]


def peers(settings: Config, workspace: Workspace) -> list[str]:
    """Measure what other tools take for the same image; the numbers and a plot are kept. Returns the table."""
    name = config.pick_image(settings, None)
    report = workspace.stage("benchmark") / f"peers-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with _scratch(workspace) as folder:
        cold = _beside(workspace, workspace.root, folder, "peers")
        changed = _beside(workspace, _with_a_change(workspace, folder / "project"), folder, "peers-changed")
        commands.keep_logs_in(cold.logs)
        places = bench_peers.Places(cold, changed, folder)
        found = bench_peers.measure(settings, name, places, lambda: _plain(settings, cold, name, folder))
        described = machine(settings, cold)
    files.write_json(report / "peers.json", {"rows": bench_peers.as_json(found), "machine": described})
    files.write(report / "peers.svg", figure.bars(found, "The same image by several tools"))
    return [*bench_peers.table(found), *console.table([("", ""), *described.items()]), "", f"written  {report}"]


def run(settings: Config, workspace: Workspace, *, image: str | None = None) -> Benchmark:
    """Build an image from nothing, then after a change of patroni_node, then after none; and measure the plain way.

    Nothing is verified. Takes about 6 GB and some minutes, and removes what it built. Raises as build_image does.
    """
    name = config.pick_image(settings, image)
    started = datetime.now(UTC)
    with _scratch(workspace) as folder:
        files.need_space(folder, SPACE_NEEDED, "benchmark")
        cold = _beside(workspace, workspace.root, folder, "cold")
        first, built = _phase("cold", COLD_SECONDS, cold, lambda: _build(settings, cold, name))
        plain, _ = _phase(PEER, None, cold, lambda: _plain(settings, cold, name, folder))
        changed = _with_a_change(workspace, folder / "project")
        warm = _beside(workspace, changed, folder, "warm")
        second, built = _phase("patroni_node changed", WARM_SECONDS, warm, lambda: _build(settings, warm, name))
        same = _beside(workspace, changed, folder, "unchanged")
        third, built = _phase("nothing changed", UNCHANGED_SECONDS, same, lambda: _build(settings, same, name))
        size = built.main.stat().st_size
        found = machine(settings, same)
    report = workspace.stage("benchmark") / f"{started:%Y%m%d-%H%M%S}.json"
    phases = (plain, first, second, third)
    result = Benchmark(name, started.isoformat(timespec="seconds"), phases, size, found, report)
    files.write_json(report, result.as_json())
    return result


@contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    """A folder that goes when the run ends, while no other run uses the build folder (and this machine's cores)."""
    with lock.held(workspace, "wait for it: two runs at once would measure each other"):
        workspace.work.mkdir(parents=True, exist_ok=True)
        # The dots make the next run's clearing-up find it, should this one be killed.
        with tempfile.TemporaryDirectory(dir=workspace.work, prefix=".bench.") as name:
            # apt reads the repository below it as a user of its own.
            Path(name).chmod(0o755)
            yield Path(name)


def _beside(workspace: Workspace, root: Path, folder: Path, phase: str) -> Workspace:
    """A workspace of the sources in root that builds below folder; its logs are kept with all others."""
    found = Workspace(root, folder / "build", f"{workspace.run_id}-{phase}")
    logs = workspace.logs.parent
    (logs / found.run_id).mkdir(parents=True, exist_ok=True)
    found.build.mkdir(exist_ok=True)
    if not found.logs.parent.is_symlink():
        found.logs.parent.symlink_to(logs)
    return found


def _phase(name: str, limit: float | None, workspace: Workspace, act: Callable[[], T]) -> tuple[Phase, T]:
    """Do act and measure it; its commands' logs go to workspace."""
    commands.keep_logs_in(workspace.logs)
    log.info(f"benchmark: {name}")
    before = len(log.records())
    begin = time.monotonic()
    result = act()
    return Phase(name, time.monotonic() - begin, limit, log.records()[before:]), result


def _build(settings: Config, workspace: Workspace, name: str) -> image.Release:
    return build.build_image(settings, workspace, image=name, verify=False).release


def _plain(settings: Config, workspace: Workspace, name: str, folder: Path) -> None:
    """The peer: the same Debian packages of the same repository, by mmdebstrap as its manual says, into a tarball."""
    chosen = settings.images[name]
    packages = archive.build(settings, chosen, workspace, offline=True)
    include = [n for n in archive.base_names(settings, chosen) if not n.startswith("?")]
    include += ["consul"] if packages.consul else []
    words = ["mmdebstrap", "--mode=root", "--variant=required", archive.READ_AS_ROOT, f"--include={','.join(include)}"]
    words += [chosen.suite, str(folder / "plain.tar"), packages.line()]
    with log.stage(PEER, "for comparison"):
        commands.run(commands.contained(words), name="mmdebstrap", what=f"{PEER}: mmdebstrap")


def _with_a_change(workspace: Workspace, target: Path) -> Path:
    """A copy of the project's sources with one more comment in the node's program, as a developer would change it."""

    def not_sources(folder: str, names: list[str]) -> list[str]:
        top = Path(folder) == workspace.root
        return [n for n in names if n == "__pycache__" or (top and (n.startswith(".") or n == "build"))]

    shutil.copytree(workspace.root, target, symlinks=True, ignore=not_sources)
    program = Workspace(target, workspace.build, workspace.run_id).node_program / "cli.py"
    with program.open("a", encoding="utf-8") as stream:
        stream.write("# changed by the benchmark\n")
    return target


def machine(settings: Config, workspace: Workspace) -> dict[str, str]:
    """What was measured on: processor, memory, kernel, QEMU, how its guests ran. Nothing that names it."""
    found = verify.host_description()
    total = re.search(r"^MemTotal: +(\d+) kB", MEMORY.read_text(encoding="ascii"), re.MULTILINE)
    memory = files.human(int(total[1]) * 1024) if total else "unknown"
    kernels = sorted(workspace.stage("base").glob("*/vmlinuz"))
    accelerator = kvm.accelerator(settings.build.accelerator, kernels[-1], None, workspace) if kernels else "unknown"
    return {
        "processor": f"{found['cpus']} x {found['cpu']}",
        "memory": memory,
        "system": f"{found['system']}, Linux {found['kernel']}",
        "qemu": found["qemu"].removeprefix("QEMU emulator version "),
        "guests": accelerator,
    }
