"""Networks that break, in one direction or both, and stores that do not answer."""

from __future__ import annotations

import time

from foundry.lab.cluster import Cluster
from foundry.lab.plan import PROFILES
from tests.cluster.trial import SQL, Trial, synchronous_mode, trial

TTL = PROFILES["fast"]["ttl"]


def write_for(seen: Trial, seconds: float) -> None:
    """Writes go on, again and again, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen.witness.wait_progress(15, 20)


def follower(seen: Trial) -> str:
    """A replica whose Consul server is not the one that the servers have elected.

    Else they elect anew: some seconds that the lock's renewal may or may not live through.
    """
    peers = seen.on(seen.leader, "sudo consul operator raft list-peers").splitlines()[1:]
    elected = next(line.split()[0] for line in peers if line.split()[3] == "leader")
    return next(name for name in seen.replicas if name != elected)


def stepped_down_in_time(seen: Trial) -> None:
    first, last = seen.judgement.leaderships[0], seen.judgement.leaderships[-1]
    assert first.member == seen.leader != last.member
    assert first.end < last.begin


def test_the_leader_is_alone(cluster: Cluster) -> None:
    """It steps down before its lock has run out; only then another one leads. Clients reach all of them meanwhile.

    Consul's cleanup_dead_servers is off, or its lock would be gone before. What it has written alone is taken back by
    pg_rewind (use_pg_rewind, and its own access rule).
    """
    with trial(cluster, "leader-alone") as seen:
        cluster.network.split([seen.leader])
        # Its own client, which no other member ever hears of: WAL that differs from the next leader's.
        seen.on(seen.leader, f"{SQL} 'CREATE TABLE IF NOT EXISTS alone (n int)'", check=False)
        seen.on(seen.leader, f"{SQL} 'INSERT INTO alone SELECT generate_series(1, 10000)'", check=False)
        seen.new_leader()
        seen.writes_go_on()
        cluster.network.heal()
    stepped_down_in_time(seen)
    said = seen.journal(seen.leader)
    assert "running pg_rewind" in said
    assert "bootstrap from leader" not in said, "it was copied anew"


def test_the_leader_is_alone_and_synchronous(cluster: Cluster) -> None:
    """No replica confirms what it writes, so it acknowledges nothing. Without synchronous_mode: see the test above."""
    with synchronous_mode(cluster), trial(cluster, "leader-alone-synchronous", synchronous=True) as seen:
        cluster.network.split([seen.leader])
        seen.new_leader()
        seen.writes_go_on()
        cluster.network.heal()


def test_the_leader_hears_and_is_not_heard(cluster: Cluster) -> None:
    """What it sends is lost, renewals of its lock as well as questions to the members: it steps down."""
    with trial(cluster, "mute") as seen:
        cluster.network.drop((seen.leader, name) for name in seen.replicas)
        seen.new_leader()
        seen.writes_go_on()
        cluster.network.heal()
    stepped_down_in_time(seen)


def test_a_replica_is_alone(cluster: Cluster) -> None:
    with trial(cluster, "replica-alone", synchronous=True) as seen:
        cluster.network.split([follower(seen)])
        write_for(seen, TTL + 5)
        cluster.network.heal()
    assert [led.member for led in seen.judgement.leaderships] == [seen.leader]


def test_one_consul_server_is_down(cluster: Cluster) -> None:
    """Two of three are a quorum."""
    with trial(cluster, "one-consul", synchronous=True) as seen:
        stopped = follower(seen)
        seen.on(stopped, "sudo systemctl stop consul")
        write_for(seen, TTL + 5)
        seen.on(stopped, "sudo systemctl start consul")
    assert seen.judgement.outage.seconds < TTL


def test_all_of_consul_is_down_and_the_leader_goes_on(cluster: Cluster) -> None:
    """failsafe_mode: a leader that all members confirm need not step down because the store has gone.

    First its own agent alone, so that the others could take over when the lock has run out; then all of them.
    """
    with trial(cluster, "no-consul", synchronous=True) as seen:
        seen.on(seen.leader, "sudo systemctl stop consul")
        write_for(seen, TTL + 5)
        for name in seen.replicas:
            seen.on(name, "sudo systemctl stop consul")
        write_for(seen, TTL + 5)
        assert seen.on(seen.leader, f"{SQL} 'SELECT pg_is_in_recovery()'") == "f"
        for name in cluster.machines:
            seen.on(name, "sudo systemctl start consul")
    assert [led.member for led in seen.judgement.leaderships] == [seen.leader]


def test_the_leader_is_heard_by_one_replica_only(cluster: Cluster) -> None:
    """Its frames to the other are lost, and not that one's to it.

    Consul's elections have no pre-vote (1.8.7): a server that hears nothing asks for votes, and is heard. So it may be
    that the lock cannot be renewed and somebody else leads. What must hold: one writer at a time, and writes again.
    """
    with trial(cluster, "deaf") as seen:
        cluster.network.drop([(seen.leader, seen.replicas[0])])
        end = time.monotonic() + TTL + 5
        while time.monotonic() < end:
            seen.writes_go_on()
        cluster.network.heal()


def test_a_slow_network(cluster: Cluster) -> None:
    """200 ms there and back between any two members: all is slower, nothing else."""
    with trial(cluster, "slow") as seen:
        for name in cluster.machines:
            cluster.network.delay(name, 50)
        write_for(seen, TTL + 5)
        cluster.network.heal()
    assert [led.member for led in seen.judgement.leaderships] == [seen.leader]
