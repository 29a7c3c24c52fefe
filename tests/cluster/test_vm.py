"""What needs a machine with a watchdog and a clock of its own: three virtual machines (`./inv test --machine vm`)."""

from __future__ import annotations

import pytest

from foundry import config
from foundry.errors import GuestError
from foundry.lab import disks
from foundry.lab.cluster import Cluster
from foundry.workspace import Workspace
from tests.cluster.conftest import Clusters
from tests.cluster.trial import PATRONICTL, trial
from tests.pipeline.harness import ROOT, until

# Emulated machines take minutes for what takes containers seconds.
HEAL_SECONDS = 900


@pytest.fixture(scope="module")
def machines(clusters: Clusters) -> Cluster:
    workspace = Workspace.at(ROOT)
    how = disks.accelerator(config.load(workspace.config), clusters.disk, "qcow2", workspace)
    # Patroni's own times: emulated, a question to the store may take seconds, and "fast" leaves it eight until a reset.
    return clusters.make(machine="vm", accelerator=how, profile="default")


def boot_id(cluster: Cluster, name: str) -> str:
    return cluster.machines[name].ssh("cat /proc/sys/kernel/random/boot_id").output


def test_three_virtual_machines_form_a_cluster(machines: Cluster) -> None:
    assert sorted(m.role for m in machines.members()) == ["leader", "replica", "replica"]
    leader = machines.leader()
    assert leader is not None
    said = machines.machines[leader].ssh("sudo journalctl -b -u patroni -o cat --no-pager").output
    assert "Software Watchdog activated" in said


def test_a_switchover(machines: Cluster) -> None:
    with trial(machines, "vm-switchover", synchronous=True, heal=HEAL_SECONDS) as seen:
        command = f"{PATRONICTL} switchover {machines.plan.cluster} --force"
        seen.on(seen.leader, f"{command} --leader {seen.leader} --candidate {seen.replicas[0]}")
        assert seen.new_leader(HEAL_SECONDS) == seen.replicas[0]


def test_a_patroni_that_hangs_is_reset_by_the_watchdog(machines: Cluster) -> None:
    """Its PostgreSQL would go on after the lock has run out, and another leader beside it."""
    with trial(machines, "vm-frozen", heal=HEAL_SECONDS) as seen:
        before = boot_id(machines, seen.leader)
        seen.on(seen.leader, "sudo systemctl kill --kill-whom=main --signal=STOP patroni")
        seen.new_leader(HEAL_SECONDS)
        seen.writes_go_on(HEAL_SECONDS)

        def reset() -> tuple[bool, object]:
            try:
                now = boot_id(machines, seen.leader)
            except GuestError as error:
                return False, error
            return now != before, now

        # Another one may lead before it bites, and then this machine still answers.
        until(reset, f"{seen.leader} was reset", HEAL_SECONDS)
        machines.wait_ready([seen.leader])


def test_a_clock_that_jumps(machines: Cluster) -> None:
    """A leader an hour ahead, and then set right again, goes on leading; so does a replica following."""
    with trial(machines, "vm-clock", synchronous=True, heal=HEAL_SECONDS) as seen:
        before = {name: boot_id(machines, name) for name in machines.machines}
        for name in (seen.leader, seen.replicas[0]):
            # Not by timedatectl, which waits 25 s for another service to start and no longer.
            seen.on(name, "sudo systemctl stop systemd-timesyncd")
            for shift in ("+1 hour", "-1 hour"):
                seen.on(name, f"sudo date -s '{shift}'")
                # Long enough for a key that nobody renews to run out, a watchdog to bite, and another one to lead.
                seen.writes_go_on_for(2 * machines.plan.ttl)
    assert {led.member for led in seen.judgement.leaderships} == {seen.leader}
    assert {name: boot_id(machines, name) for name in machines.machines} == before
