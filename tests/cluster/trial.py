"""A fault while clients write, and the verdict on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from foundry.lab.cluster import Cluster
from foundry.lab.judge import Judgement, judge
from foundry.lab.witness import Witness, rows, watch
from tests.pipeline.harness import until

HEAL_SECONDS = 120
PROGRESS_SECONDS = 120
# Writes a second. An emulated machine has enough to do with so many.
RATE = {"container": "100", "vm": "20"}
MAXIMUM_LAG = 1048576
"""maximum_lag_on_failover of templates/etc/patroni/patroni.yml.j2."""
PATRONICTL = "patronictl -c /etc/patroni/patroni.yml"
SQL = "cd / && sudo -u postgres psql -XAtc"


@dataclass
class Trial:
    """One fault: who led before it, and, once it is over, the judgement."""

    cluster: Cluster
    witness: Witness
    leader: str
    verdict: Judgement | None = None

    @property
    def judgement(self) -> Judgement:
        assert self.verdict is not None, "the trial is still under way"
        return self.verdict

    @property
    def replicas(self) -> list[str]:
        return [name for name in self.cluster.machines if name != self.leader]

    def on(self, name: str, command: str, *, check: bool = True) -> str:
        return self.cluster.machines[name].ssh(command, timeout=120, check=check).output

    def writes_go_on(self, seconds: float = PROGRESS_SECONDS) -> None:
        """Fifty more values are begun and acknowledged."""
        self.witness.wait_progress(seconds, 50)

    def writes_go_on_for(self, seconds: float) -> None:
        """Values are begun and acknowledged until seconds have passed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.writes_go_on()

    def new_leader(self, seconds: float = HEAL_SECONDS) -> str:
        """Wait until another member leads; returns its name."""
        found = self.cluster.wait_members(
            lambda members: any(m.role == "leader" and m.name != self.leader and m.healthy for m in members),
            f"a leader that is not {self.leader}",
            seconds,
        )
        return next(m.name for m in found if m.role == "leader")

    def journal(self, name: str) -> str:
        """What Patroni has said on a node since the trial began, on a machine with the host's clock."""
        since = self.witness.history().wall
        return self.on(name, f"sudo journalctl --since=@{since:.3f} -u patroni -o cat --no-pager")


@contextmanager
def trial(
    cluster: Cluster,
    name: str,
    *,
    synchronous: bool = False,
    heal: float = HEAL_SECONDS,
    known: str | None = None,
) -> Iterator[Trial]:
    """Write before, during and after the block; then the cluster heals by itself, and is judged.

    synchronous: nothing that was acknowledged may be lost; else a failover may lose what Patroni's manual allows.
    heal: the most seconds that may take. known: how the judge's sentences on it begin, if this fault is known for one.
    """
    leader = cluster.leader()
    assert leader is not None
    with watch(cluster, name, ["--rate", RATE[cluster.plan.machine]]) as witness:
        found = Trial(cluster, witness, leader)
        found.writes_go_on()
        witness.note(name)
        yield found
        found.writes_go_on()
    cluster.wait_formed(len(cluster.nodes), heal)
    found.verdict = judge(
        witness.history(),
        rows(cluster, witness.run),
        synchronous=synchronous,
        maximum_lag=MAXIMUM_LAG,
        ttl=cluster.plan.ttl,
    )
    print("\n".join([name, *found.judgement.summary()]))
    unknown = [text for text in found.judgement.violations if known is None or not text.startswith(known)]
    assert unknown == [], "\n".join(found.judgement.summary())


@contextmanager
def synchronous_mode(cluster: Cluster) -> Iterator[None]:
    """The leader waits for one replica at each commit while the block lasts."""
    _edit(cluster, "synchronous_mode=true")
    try:
        cluster.wait_members(lambda ms: any(m.role == "sync_standby" for m in ms), "a synchronous one", HEAL_SECONDS)
        yield
    finally:
        _edit(cluster, "synchronous_mode=false")
    leader = cluster.leader()
    assert leader is not None

    def asynchronous() -> tuple[bool, object]:
        names = cluster.machines[leader].ssh(f"{SQL} 'SHOW synchronous_standby_names'").output
        return names == "", names

    until(asynchronous, "a leader that waits for nobody", HEAL_SECONDS)


def _edit(cluster: Cluster, setting: str) -> None:
    name = next(name for name, machine in cluster.machines.items() if machine.dead() is None)
    cluster.machines[name].ssh(f"{PATRONICTL} edit-config --force -s {setting}")
