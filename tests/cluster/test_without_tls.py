"""`tls: off` opens what docs/node.md says of it, and no more: Consul's rules and the packet filter hold without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from foundry.lab.cluster import Cluster
from patroni_node.derivation import derive
from tests.cluster.attempts import AGENT, CONFIG, requests_of
from tests.cluster.conftest import Clusters
from tests.cluster.test_attacks import MEMBER, OTHER, Stranger, configuration, inside


@pytest.fixture(scope="module")
def open_cluster(clusters: Clusters) -> Cluster:
    return clusters.make(protection={"tls": "off"})


@pytest.fixture
def stranger(open_cluster: Cluster) -> Iterator[Stranger]:
    """Somebody without any certificate."""
    plan = open_cluster.plan
    found = Stranger(open_cluster, {}, [], derive(plan.key, plan.cluster, 2), configuration(open_cluster))
    yield found
    assert found.left_no_trace()


def test_what_is_open_is_said(open_cluster: Cluster) -> None:
    machine = open_cluster.machines[MEMBER]
    said = machine.ssh("sudo patroni-node status").output
    assert "open      tls: off: passwords" in said and "problems  none" in said
    assert "port 8300 from `networks`" in machine.ssh("sudo patroni-node check").output


@pytest.mark.parametrize("account", ["nobody", "postgres"])
def test_an_account_on_a_node_does_not_get_to_the_store(stranger: Stranger, account: str) -> None:
    """Raft asks for no token, and each server lets the nodes in: by it, nobody became postgres on all of them."""
    wanted = requests_of(AGENT, stranger.payload % "http", MEMBER, OTHER, "127.0.0.1", 8500)
    arguments = {"hosts": stranger.hosts, "pairs": {}, "key": CONFIG, "payload": stranger.payload}
    found = stranger.on_node(account, requests={"wanted": wanted}, store=arguments, raft=arguments)
    assert all(found.values())
    assert {what: inside(outcomes) for what, outcomes in found.items()} == {"requests": {}, "store": {}, "raft": {}}


def test_a_machine_on_the_network_gets_nothing_by_requests(stranger: Stranger) -> None:
    arguments = {"hosts": stranger.hosts, "pairs": {}, "key": CONFIG, "payload": stranger.payload}
    found = stranger.from_network(store=arguments)["store"]
    # Raft answers him, as docs/node.md says.
    assert set(inside(found)) == {f"{host} vote, plain" for host in stranger.hosts}
