"""Who a node is and where: every way to say it, and what happens when machines move, are copied or share a name."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry.machine import Machine
from tests.pipeline.lab import CLUSTER, Lab, leads, refusal, roles, static, whole_cluster, write

NODE_YML = "/etc/patroni/node.yml"
KEY = secrets.token_urlsafe(24)


@pytest.fixture(scope="module")
def made(built: Path, playground: Path) -> Iterator[Callable[[], Lab]]:
    """Makes labs whose machines several tests use, one after the other."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Lab(built, playground / f"lab-{secrets.token_hex(3)}"))


@pytest.fixture(scope="module")
def single(made: Callable[[], Lab]) -> Machine:
    """A node with one card, named by its host name."""
    lab = made()
    return lab.boot(lab.spec(1, {"networks": ["10.129.0.0/24"]}))


@pytest.fixture(scope="module")
def refused(made: Callable[[], Lab]) -> Machine:
    """A machine with two cards that never becomes a node."""
    lab = made()
    return lab.boot(lab.spec(1, {}, "10.129.0.21/24", "192.168.7.5/24"))


@pytest.fixture(scope="module")
def three(made: Callable[[], Lab]) -> tuple[Lab, list[Machine]]:
    """A cluster of three, and its lab."""
    lab = made()
    return lab, lab.cluster(3)


def give(machine: Machine, node: Mapping[str, Any] | None) -> None:
    """Put this into node.yml, or take node.yml away."""
    machine.ssh(f"sudo rm -f {NODE_YML}")
    if node is not None:
        write(machine, NODE_YML, yaml.safe_dump({"cluster": CLUSTER, "secrets": {"key": KEY}, **node}))


def test_explicit_name_and_address(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, {"name": "pg-one", "address": "10.129.0.21"}, name="host-a"))
    leads(node, "pg-one", "10.129.0.21")


def test_the_host_name_is_the_name_and_outlives_a_change_of_it(single: Machine) -> None:
    leads(single, "pg-srv1", "10.129.0.21")
    single.ssh("sudo hostnamectl hostname dhcp-17 || sudo hostname dhcp-17")
    single.ssh("sudo systemctl restart patroni-node && sudo systemctl reload patroni")
    leads(single, "pg-srv1", "10.129.0.21")


def test_another_address_after_a_reboot(single: Machine) -> None:
    """The name stays, the address follows, data and cluster are the same, and the node comes back by itself."""
    leads(single, "pg-srv1", "10.129.0.21")
    single.ssh("sudo -u postgres psql -c 'CREATE TABLE kept AS SELECT 42 AS answer'")
    single.ssh("sudo rm -f /etc/systemd/network/*; sudo sync")
    # Not a new instance: cloud-init keeps its own files, so the network is changed as an administrator would.
    single.ssh(
        "printf '[Match]\\nName=eth0\\n[Network]\\nAddress=10.129.0.77/24\\n' |"
        " sudo tee /etc/systemd/network/10-cloud-init-eth0.network && sudo sync"
    )
    single.reboot(180)
    leads(single, "pg-srv1", "10.129.0.77")
    assert single.ssh("sudo -u postgres psql -Atc 'SELECT answer FROM kept'").output == "42"


@pytest.mark.parametrize("address", [{"interface": "eth1"}, {"cidr": "192.168.7.0/24"}, "192.168.7.5"])
def test_two_cards_and_a_choice(lab: Lab, address: object) -> None:
    node = lab.boot(lab.spec(1, {"address": address}, "10.129.0.21/24", "192.168.7.5/24"))
    leads(node, "pg-srv1", "192.168.7.5")


def test_two_cards_and_no_choice_is_refused(refused: Machine) -> None:
    give(refused, {})
    said = refusal(refused)
    assert "has several addresses (10.129.0.21, 192.168.7.5)" in said
    assert "set `address:`" in said


def test_an_address_that_the_machine_does_not_have_is_refused(refused: Machine) -> None:
    give(refused, {"address": "10.129.0.99"})
    said = refusal(refused)
    assert "10.129.0.99 is on no interface of this machine, which has 10.129.0.21 (eth0), 192.168.7.5 (eth1)" in said


def test_without_node_yml_it_says_what_to_write(refused: Machine) -> None:
    give(refused, None)
    assert "/etc/patroni/node.yml: is missing: write `cluster:` and `secrets:" in refusal(refused)


def test_ipv6_only(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, {"networks": ["fd00:129::/64"]}, "fd00:129::21/64"))
    leads(node, "pg-srv1", "fd00:129::21")
    assert node.ssh("sudo -u postgres psql -Atc 'SELECT 1'").output == "1"


def test_the_name_of_a_living_member_is_refused(three: tuple[Lab, list[Machine]]) -> None:
    lab, nodes = three
    join = ["10.129.0.21", "10.129.0.22", "10.129.0.23"]
    whole = {"networks": ["10.129.0.0/24"], "dcs": {"consul": {"join": join, "expect": 3}}}
    twin: Machine = lab.boot(lab.spec(4, {**whole, "name": "pg-srv2"}))
    said = refusal(twin)
    assert "name: pg-srv2 is the name of a node that runs at 10.129.0.22:8008" in said
    assert {m["Member"] for m in whole_cluster(nodes[0], 3)} == {"pg-srv1", "pg-srv2", "pg-srv3"}
    # Its address is the clone's next.
    twin.stop()


def test_a_clone_is_a_new_node(three: tuple[Lab, list[Machine]]) -> None:
    """A machine's disk under another instance-id joins the same cluster as another member; its data is not copied."""
    lab, nodes = three
    name = next(member for member, _, role in roles(nodes[0]) if role == "Replica")
    replica = next(n for n in nodes if n.spec.seed.hostname == name)
    other = next(n for n in nodes if n is not replica)
    lab.again(
        replica,
        instance_id=f"i-{secrets.token_hex(6)}",
        hostname="pg-srv4",
        network=static("10.129.0.24/24"),
    )
    found = {m["Member"] for m in whole_cluster(other, 3)}
    assert "pg-srv4" in found and name not in found
    assert replica.ssh("sudo ls /var/lib/patroni-node/consul-before-clone/node-id").output
    assert "bootstrap from leader" not in replica.ssh("sudo journalctl -b -u patroni -o cat").output
