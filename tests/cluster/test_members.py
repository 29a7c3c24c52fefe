"""A member more, a member less, and one that has moved to another address."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from foundry.lab.cluster import Cluster
from foundry.lab.plan import Node, node
from foundry.machine import Spec
from tests.cluster.conftest import Clusters
from tests.cluster.trial import trial
from tests.pipeline.harness import until

SECONDS = 180
PEERS = "sudo consul operator raft list-peers"
NEW_ADDRESS = "10.129.0.77"
# What cloud-init has written at the first boot, and writes for a new instance only.
MOVE = (
    f"printf '[Match]\\nName=eth0\\n[Network]\\nAddress={NEW_ADDRESS}/24\\n' |"
    " sudo tee /etc/systemd/network/10-cloud-init-eth0.network && sudo sync"
)


class FoundByNetwork(Cluster):
    """Each node finds its own address in the network: one node.yml for all but the name."""

    def spec(self, node: Node, **more: Any) -> Spec:
        found = super().spec(node, **more)
        text = yaml.safe_load(str(found.seed.node_yml))
        text["address"] = {"cidr": "10.129.0.0/24"}
        return replace(found, seed=replace(found.seed, node_yml=yaml.safe_dump(text)))


@pytest.fixture(scope="module")
def movable(clusters: Clusters) -> Cluster:
    return clusters.make(FoundByNetwork)


def raft(cluster: Cluster, name: str) -> dict[str, str]:
    """Consul's servers as one of them knows them: name to address."""
    lines = cluster.machines[name].ssh(PEERS).output.splitlines()[1:]
    return {line.split()[0]: line.split()[2].partition(":")[0] for line in lines}


def test_from_three_to_four_and_back(movable: Cluster) -> None:
    cluster, fourth = movable, node(4)
    with trial(cluster, "four", synchronous=True) as seen:
        everyone = [*cluster.plan.members, fourth]
        cluster.boot(fourth, seed=cluster.spec(fourth, node_yml=cluster.plan.node_yml(fourth, everyone)).seed)
        cluster.wait_ready([fourth.name])
        found = cluster.wait_formed(4, SECONDS)
        assert {m.name: m.host for m in found}[fourth.name] == fourth.address
        assert set(raft(cluster, seen.leader)) == {m.name for m in everyone}
        # As docs/node.md says of servers that go for good.
        cluster.machines[fourth.name].ssh("sudo systemctl disable --now patroni consul", timeout=SECONDS)
        cluster.machines[seen.leader].ssh(f"sudo consul force-leave {fourth.name}")
        cluster.remove(fourth.name)
        cluster.wait_formed(3, SECONDS)
    until(lambda: (len(raft(cluster, seen.leader)) == 3, raft(cluster, seen.leader)), "three servers again", 60)
    assert {led.member for led in seen.judgement.leaderships} == {seen.leader}


def test_a_member_moves_to_another_address(movable: Cluster) -> None:
    """The same instance: its name stays, its address follows, and the others' lists of servers need no change."""
    cluster = movable
    with trial(cluster, "moved", synchronous=True) as seen:
        moved = seen.replicas[0]
        cluster.machines[moved].ssh(MOVE)
        cluster.nodes[moved] = Node(moved, NEW_ADDRESS)
        cluster.machines[moved].reboot(SECONDS)

        def back() -> tuple[bool, object]:
            found = cluster.seen_by(seen.leader)
            return any(m.name == moved and m.host == NEW_ADDRESS and m.state == "streaming" for m in found), found

        until(back, f"{moved} at {NEW_ADDRESS}", SECONDS)
    until(lambda: (raft(cluster, seen.leader)[moved] == NEW_ADDRESS, raft(cluster, seen.leader)), "Consul", 60)
    assert len(raft(cluster, seen.leader)) == 3
