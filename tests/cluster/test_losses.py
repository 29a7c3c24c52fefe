"""Members that die: the leader in several ways, a replica; each comes back by itself."""

from __future__ import annotations

from foundry.lab.cluster import Cluster
from tests.cluster.trial import synchronous_mode, trial


def test_everything_of_the_leader_is_killed(cluster: Cluster) -> None:
    """Restart=on-failure brings Patroni back; without it PostgreSQL would stay down, or run unguarded."""
    with trial(cluster, "killed") as seen:
        pid = seen.on(seen.leader, "systemctl show -P MainPID patroni")
        seen.on(seen.leader, "sudo systemctl kill --kill-whom=all --signal=KILL patroni")
        seen.writes_go_on()
    assert seen.on(seen.leader, "systemctl show -P MainPID patroni") not in ("0", pid)


def test_the_leader_s_power_is_cut(cluster: Cluster) -> None:
    """The lock runs out after ttl, and one of the others leads; the old leader comes back as a replica of it."""
    with trial(cluster, "power") as seen:
        cluster.machines[seen.leader].cut_power()
        assert seen.new_leader() != seen.leader
        seen.writes_go_on()
        cluster.boot(cluster.nodes[seen.leader])
        cluster.wait_ready([seen.leader])
    assert next(m.role for m in cluster.members() if m.name == seen.leader) == "replica"
    assert "bootstrap from leader" not in seen.journal(seen.leader), "it was copied anew"


def test_a_leader_that_is_stopped_hands_over_and_loses_nothing(cluster: Cluster) -> None:
    """A leader that goes in order gives its lock away at once, to a replica that has everything."""
    with trial(cluster, "stopped", synchronous=True) as seen:
        seen.on(seen.leader, "sudo systemctl stop patroni")
        seen.writes_go_on()
        seen.on(seen.leader, "sudo systemctl start patroni")
    assert seen.judgement.outage.seconds < 20, "ttl: the lock was not given away"


def test_a_replica_s_power_is_cut(cluster: Cluster) -> None:
    with trial(cluster, "replica", synchronous=True) as seen:
        lost = seen.replicas[0]
        cluster.machines[lost].cut_power()
        seen.writes_go_on()
        cluster.boot(cluster.nodes[lost])
        cluster.wait_ready([lost])
    assert {led.member for led in seen.judgement.leaderships} == {seen.leader}


def test_synchronous_replication_loses_nothing_with_the_leader(cluster: Cluster) -> None:
    """With synchronous_mode only a member that has everything takes over."""
    with synchronous_mode(cluster), trial(cluster, "synchronous", synchronous=True) as seen:
        cluster.machines[seen.leader].cut_power()
        seen.new_leader()
        seen.writes_go_on()
        cluster.boot(cluster.nodes[seen.leader])
        cluster.wait_ready([seen.leader])
