"""Machines that stand still and go on: a hypervisor that pauses one, or migrates it slowly."""

from __future__ import annotations

from foundry.lab.cluster import Cluster
from tests.cluster.trial import synchronous_mode, trial

TWO_WRITERS = "two writers: "


def test_the_leader_stands_still_for_longer_than_ttl(cluster: Cluster) -> None:
    """When it wakes up it is a leader that has lost its lock, for as long as Patroni takes to find that out.

    Nothing can fence a machine that does not run: its watchdog stands still with it. What protects is
    synchronous_mode: no replica confirms what the old leader still writes, so none of it is acknowledged. Only the
    samplers, who commit without waiting for a replica, see it writable.
    """
    with synchronous_mode(cluster), trial(cluster, "frozen", synchronous=True, known=TWO_WRITERS) as seen:
        cluster.machines[seen.leader].freeze()
        new = seen.new_leader()
        seen.writes_go_on()
        cluster.machines[seen.leader].thaw()
        seen.writes_go_on()
    assert seen.judgement.lost == []
    assert {led.member for led in seen.judgement.leaderships} == {seen.leader, new}
    assert next(m.role for m in cluster.members() if m.name == seen.leader) != "leader"
