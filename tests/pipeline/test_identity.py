"""Who a node is and where: every way to say it, and what happens when machines move, are copied or share a name."""

from __future__ import annotations

import secrets

import pytest

from foundry.machine import Machine
from tests.pipeline.lab import Lab, leads, refusal, roles, static, whole_cluster


def test_explicit_name_and_address(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, {"name": "pg-one", "address": "10.129.0.21"}, name="host-a"))
    leads(node, "pg-one", "10.129.0.21")


def test_the_host_name_is_the_name_and_outlives_a_change_of_it(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, {}))
    leads(node, "pg-srv1", "10.129.0.21")
    node.ssh("sudo hostnamectl hostname dhcp-17 || sudo hostname dhcp-17")
    node.ssh("sudo systemctl restart patroni-node && sudo systemctl reload patroni")
    leads(node, "pg-srv1", "10.129.0.21")


@pytest.mark.parametrize("address", [{"interface": "eth1"}, {"cidr": "192.168.7.0/24"}, "192.168.7.5"])
def test_two_cards_and_a_choice(lab: Lab, address: object) -> None:
    node = lab.boot(lab.spec(1, {"address": address}, "10.129.0.21/24", "192.168.7.5/24"))
    leads(node, "pg-srv1", "192.168.7.5")


def test_two_cards_and_no_choice_is_refused(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, {}, "10.129.0.21/24", "192.168.7.5/24"))
    said = refusal(node)
    assert "has several addresses (10.129.0.21, 192.168.7.5)" in said
    assert "set `address:`" in said


def test_an_address_that_the_machine_does_not_have_is_refused(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, {"address": "10.129.0.99"}))
    assert "10.129.0.99 is on no interface of this machine, which has 10.129.0.21 (eth0)" in refusal(node)


def test_ipv6_only(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, {"networks": ["fd00:129::/64"]}, "fd00:129::21/64"))
    leads(node, "pg-srv1", "fd00:129::21")
    assert node.ssh("sudo -u postgres psql -Atc 'SELECT 1'").output == "1"


def test_without_node_yml_it_says_what_to_write(lab: Lab) -> None:
    node = lab.boot(lab.spec(1, None))
    assert "/etc/patroni/node.yml: is missing: write `cluster:` and `secrets:" in refusal(node)


def test_another_address_after_a_reboot(lab: Lab) -> None:
    """The name stays, the address follows, data and cluster are the same, and the node comes back by itself."""
    node = lab.boot(lab.spec(1, {"networks": ["10.129.0.0/24"]}))
    leads(node, "pg-srv1", "10.129.0.21")
    node.ssh("sudo -u postgres psql -c 'CREATE TABLE kept AS SELECT 42 AS answer'")
    node.ssh("sudo rm -f /etc/systemd/network/*; sudo sync")
    # Not a new instance: cloud-init keeps its own files, so the network is changed as an administrator would.
    node.ssh(
        "printf '[Match]\\nName=eth0\\n[Network]\\nAddress=10.129.0.77/24\\n' |"
        " sudo tee /etc/systemd/network/10-cloud-init-eth0.network && sudo sync"
    )
    node.reboot(180)
    leads(node, "pg-srv1", "10.129.0.77")
    assert node.ssh("sudo -u postgres psql -Atc 'SELECT answer FROM kept'").output == "42"


def test_a_clone_is_a_new_node(lab: Lab) -> None:
    """A machine's disk under another instance-id joins the same cluster as another member; its data is not copied."""
    nodes = lab.cluster(3)
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


def test_the_name_of_a_living_member_is_refused(lab: Lab) -> None:
    nodes = lab.cluster(2)
    whole = {"networks": ["10.129.0.0/24"], "dcs": {"consul": {"join": ["10.129.0.21", "10.129.0.22"], "expect": 2}}}
    twin: Machine = lab.boot(lab.spec(3, {**whole, "name": "pg-srv2"}))
    said = refusal(twin)
    assert "name: pg-srv2 is the name of a node that runs at 10.129.0.22:8008" in said
    assert {m["Member"] for m in whole_cluster(nodes[0], 2)} == {"pg-srv1", "pg-srv2"}
