"""What a cluster costs on this machine: how long it takes to form, how long writes wait for a new leader, what is lost.

Each number stands beside the limit that the settings imply, and its ratio to that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from foundry import console, files, log
from foundry.errors import GuestError
from foundry.lab import judge, plot, witness
from foundry.lab.cluster import Cluster
from foundry.lab.plan import Plan
from foundry.workspace import Workspace

FORM_SECONDS = 25.0
"""What the project promises for three containers on 2 cores; virtual machines have no limit of their own."""
SWITCHOVER_SECONDS = 10.0
"""A planned change waits for a checkpoint and a promotion, and for no time-out."""
HEAL_SECONDS = 300.0
BEFORE, AFTER = 300, 500
"""Acknowledged writes before and after a fault, so that the outage lies between."""
PGBENCH = "/usr/lib/postgresql/15/bin/pgbench"
_TPS = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Figure:
    """One number. limit: of the same unit, where there is one."""

    name: str
    value: float
    unit: str = "s"
    limit: float | None = None


@dataclass
class Figures:
    """What was measured in one lab."""

    title: str
    rows: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str = "s", limit: float | None = None) -> None:
        log.info(f"{self.title}: {name}: {value:.2f} {unit}")
        self.rows.append(Figure(name, round(value, 2), unit, limit))


def measure(base: Plan, workspace: Workspace, folder: Path) -> list[Figures]:
    """Measure containers with the default and the fast profile, and how long virtual machines take to form.

    base: the image and the accelerator; the plot of a failover is written to folder. Raises GuestError.
    """
    found = [
        _failovers(replace(base, name=f"default-{base.name}", profile="default"), workspace, folder),
        _failovers(replace(base, name=f"fast-{base.name}", profile="fast"), workspace, folder),
    ]
    machines = Figures("3 × vm")
    with Cluster(replace(base, name=f"vm-{base.name}", machine="vm"), workspace, folder / "vm") as cluster:
        machines.add("until three healthy members", cluster.up())
    return [*found, machines]


def _failovers(plan: Plan, workspace: Workspace, folder: Path) -> Figures:
    found = Figures(f"3 × container, {plan.profile} profile")
    with Cluster(plan, workspace, folder / plan.profile) as cluster:
        found.add("until three healthy members", cluster.up(), limit=FORM_SECONDS)
        settings = _settings(cluster)
        before = _pgbench(cluster, fresh=True)
        found.add("pgbench, 2 clients", before, "tps")
        _fault(cluster, found, "switchover", _switch_over, SWITCHOVER_SECONDS, folder)
        # The key lasts ttl at most from its last renewal; who notices then has loop_wait to do so.
        _fault(cluster, found, "power cut of the leader", _cut_power, settings["ttl"] + settings["loop_wait"], folder)
        found.add("pgbench on the new leader", _pgbench(cluster, fresh=False), "tps", limit=before)
    return found


def _settings(cluster: Cluster) -> dict[str, float]:
    machine = next(iter(cluster.machines.values()))
    node = next(iter(cluster.nodes.values()))
    text: dict[str, float] = json.loads(machine.ssh(cluster.plan.ask(node, "/config")).output)
    return text


def _leader(cluster: Cluster) -> str:
    name = cluster.leader()
    if name is None:
        raise GuestError("the cluster has no leader", details=str(cluster.members()))
    return name


def _fault(
    cluster: Cluster, found: Figures, title: str, act: Callable[[Cluster], str | None], limit: float, folder: Path
) -> None:
    """Do something to a cluster that is written to, and add how long writes had to wait and what was lost."""
    name = f"{cluster.plan.profile}-{title.split()[0]}"
    with witness.watch(cluster, name) as seen:
        seen.wait_progress(60, BEFORE)
        seen.note(title)
        down = act(cluster)
        seen.wait_progress(HEAL_SECONDS)
        seen.note("writes again")
        seen.wait_progress(HEAL_SECONDS, AFTER)
    if down:
        cluster.boot(cluster.nodes[down])
        cluster.wait_ready([down])
    cluster.wait_formed(cluster.plan.nodes, HEAL_SECONDS)
    history = seen.history()
    judgement = judge.judge(history, witness.rows(cluster, history.run), synchronous=False)
    if judgement.violations:
        raise GuestError(f"{title}: the cluster broke a promise", details="\n".join(judgement.violations))
    found.add(f"{title}: writes waited", judgement.outage.seconds, limit=limit)
    found.add(f"{title}: acknowledged and lost", len(judgement.lost), "writes")
    files.write(
        folder / f"{name}.svg", plot.throughput(history, seen.notes, f"{title}, {cluster.plan.profile} profile")
    )


def _switch_over(cluster: Cluster) -> None:
    leader = _leader(cluster)
    candidate = next(m.name for m in cluster.members() if m.role != "leader")
    command = f"patronictl -c /etc/patroni/patroni.yml switchover {cluster.plan.cluster} --force"
    cluster.machines[leader].ssh(f"sudo {command} --leader {leader} --candidate {candidate}", timeout=120)


def _cut_power(cluster: Cluster) -> str:
    leader = _leader(cluster)
    cluster.machines[leader].cut_power()
    return leader


def _pgbench(cluster: Cluster, *, fresh: bool, seconds: int = 5) -> float:
    """Transactions a second on the leader, by PostgreSQL's own benchmark (TPC-B-like, scale 1)."""
    machine = cluster.machines[_leader(cluster)]
    if fresh:
        machine.ssh(f"cd / && sudo -u postgres {PGBENCH} -i -q -s 1 postgres", timeout=60)
    said = machine.ssh(f"cd / && sudo -u postgres {PGBENCH} -n -c 2 -T {seconds} postgres", timeout=60).output
    tps = _TPS.search(said)
    if tps is None:
        raise GuestError("pgbench has said no tps", details=said)
    return float(tps[1])


def table(groups: Sequence[Figures]) -> list[str]:
    """All figures for a person."""
    rows: list[Sequence[str]] = []
    for group in groups:
        rows.append((group.title, "", "", "", ""))
        for row in group.rows:
            limit = f"{row.limit:.0f} {row.unit}" if row.limit else "-"
            ratio = f"{row.value / row.limit:5.2f}" if row.limit else "    -"
            over = "OVER" if row.limit and row.unit == "s" and row.value > row.limit else ""
            rows.append((f"  {row.name}", f"{row.value:9.2f} {row.unit}", ratio, limit, over))
    return console.table(rows)


def as_json(groups: Sequence[Figures]) -> list[dict[str, object]]:
    """All figures as plain values."""
    return [asdict(group) for group in groups]
