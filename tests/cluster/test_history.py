"""The judge on real clusters: what is right passes, and what is done to a cluster on purpose is noticed."""

from __future__ import annotations

from foundry.lab.cluster import Cluster
from foundry.lab.history import Value
from foundry.lab.judge import judge
from foundry.lab.witness import rows, watch
from foundry.machine import wait
from tests.cluster.conftest import Clusters

PATRONICTL = "patronictl -c /etc/patroni/patroni.yml"
PROGRESS_SECONDS = 90


def sql(cluster: Cluster, member: str, statement: str) -> str:
    return cluster.machines[member].ssh(f'cd /; sudo -u postgres psql -XAtc "{statement}"').output


def test_a_switchover_loses_nothing_and_has_one_writer_at_a_time(cluster: Cluster) -> None:
    with watch(cluster, "switchover") as witness:
        witness.wait_progress(PROGRESS_SECONDS, 100)
        before = cluster.leader()
        cluster.machines["pg-srv1"].ssh(f"{PATRONICTL} switchover {cluster.plan.cluster} --force", timeout=120)
        witness.wait_progress(PROGRESS_SECONDS, 100)
    judgement = judge(witness.history(), rows(cluster, witness.run), synchronous=True)
    assert judgement.violations == [], "\n".join(judgement.summary())
    first, last = judgement.leaderships[0], judgement.leaderships[-1]
    assert first.member == before != last.member
    assert first.timeline < last.timeline


def test_the_judge_notices_what_is_done_to_rows(cluster: Cluster) -> None:
    with watch(cluster, "rows") as witness:
        witness.wait_progress(PROGRESS_SECONDS, 100)
    leader = cluster.leader()
    assert leader
    run, table = witness.run, "foundry_history"
    seen = witness.history()
    assert judge(seen, rows(cluster, run), synchronous=True).violations == []
    sql(cluster, leader, f"DELETE FROM {table} WHERE run = '{run}' AND client = 1 AND sequence = 2")
    sql(cluster, leader, f"INSERT INTO {table} VALUES ('{run}', 2, 3), ('{run}', 9, 1)")
    judgement = judge(seen, rows(cluster, run), synchronous=False)
    assert judgement.lost == [Value(1, 2)]
    assert judgement.violations == [
        "values: 1 (2/3) written more than once",
        "values: 1 (9/1) there though nobody wrote them",
        "lost: 1 (1/2) acknowledged, though what the same leader wrote later is there",
    ]


def test_the_judge_notices_two_writers(clusters: Clusters) -> None:
    cluster = clusters.make(nodes=2)
    leader = cluster.leader()
    (other,) = {"pg-srv1", "pg-srv2"} - {leader}
    with watch(cluster, "two") as witness:
        # Its Patroni would undo at once what nobody but Patroni may do.
        cluster.machines[other].ssh("sudo systemctl kill --kill-whom=main --signal=STOP patroni")
        assert sql(cluster, other, "SELECT pg_promote()") == "t"

        def both() -> tuple[bool, object]:
            newest = witness.history().writes()[-50:]
            return {w.member for w in newest} == {leader, other}, newest[-5:]

        wait.until(both, what="two writers", timeout=PROGRESS_SECONDS, dead=lambda: None)
        witness.wait_progress(PROGRESS_SECONDS, 50)
    assert leader
    violations = judge(witness.history(), rows(cluster, witness.run, leader), synchronous=False).violations
    assert any(v.startswith(f"two writers: {leader} took ") for v in violations), violations
    assert any("took writes within 50 ms of each other" in v for v in violations), violations
