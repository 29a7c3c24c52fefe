"""Networks that break, in one direction or both, and stores that do not answer."""

from __future__ import annotations

import time

from foundry.lab.cluster import Cluster
from foundry.lab.plan import PROFILES
from tests.cluster.trial import Trial, trial

TTL = PROFILES["fast"]["ttl"]


def write_for(seen: Trial, seconds: float) -> None:
    """Writes go on, again and again, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen.witness.wait_progress(15, 20)


def test_the_leader_is_alone(cluster: Cluster) -> None:
    """It steps down before its lock has run out; only then another one leads. Clients reach all of them meanwhile.

    Consul's cleanup_dead_servers is off, or its lock would be gone before.
    """
    with trial(cluster, "leader-alone") as seen:
        cluster.network.split([seen.leader])
        seen.new_leader()
        seen.writes_go_on()
        cluster.network.heal()
    first, last = seen.judgement.leaderships[0], seen.judgement.leaderships[-1]
    assert first.member == seen.leader != last.member
    assert first.end < last.begin


def test_a_replica_is_alone(cluster: Cluster) -> None:
    with trial(cluster, "replica-alone", synchronous=True) as seen:
        cluster.network.split([seen.replicas[0]])
        write_for(seen, TTL + 5)
        cluster.network.heal()
    assert [led.member for led in seen.judgement.leaderships] == [seen.leader]


def test_one_consul_server_is_down(cluster: Cluster) -> None:
    """Two of three are a quorum. The leader's own agent is left: without it this member cannot renew its lock."""
    with trial(cluster, "one-consul", synchronous=True) as seen:
        seen.on(seen.replicas[0], "sudo systemctl stop consul")
        write_for(seen, TTL + 5)
        seen.on(seen.replicas[0], "sudo systemctl start consul")
    assert seen.judgement.outage.seconds < TTL


def test_all_of_consul_is_down_and_the_leader_goes_on(cluster: Cluster) -> None:
    """failsafe_mode: a leader that all members confirm need not step down because the store has gone."""
    with trial(cluster, "no-consul", synchronous=True) as seen:
        for name in cluster.machines:
            seen.on(name, "sudo systemctl stop consul")
        write_for(seen, 2 * TTL)
        assert seen.on(seen.leader, "cd / && sudo -u postgres psql -XAtc 'SELECT pg_is_in_recovery()'") == "f"
        for name in cluster.machines:
            seen.on(name, "sudo systemctl start consul")
    assert [led.member for led in seen.judgement.leaderships] == [seen.leader]


def test_the_leader_is_heard_by_one_replica_only(cluster: Cluster) -> None:
    """Its frames to the other are lost, and not that one's to it."""
    with trial(cluster, "deaf") as seen:
        cluster.network.drop([(seen.leader, seen.replicas[0])])
        write_for(seen, TTL + 5)
        cluster.network.heal()


def test_a_slow_network(cluster: Cluster) -> None:
    """200 ms there and back between any two members: all is slower, nothing else."""
    with trial(cluster, "slow") as seen:
        for name in cluster.machines:
            cluster.network.delay(name, 50)
        write_for(seen, TTL + 5)
        cluster.network.heal()
    assert [led.member for led in seen.judgement.leaderships] == [seen.leader]
