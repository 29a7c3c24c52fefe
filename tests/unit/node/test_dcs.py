"""Every way to the store: what Patroni is told, and what runs of Consul on this node."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest
import yaml
from conftest import KEY, MINIMAL, Node

from patroni_node.configure import configure
from patroni_node.errors import NodeError

NETWORKS = "networks: [10.129.0.0/24]\n"
GOSSIP = "YWFhYWFhYWFhYWFhYWFhYQ=="


def patroni(node: Node, text: str) -> dict[str, Any]:
    node.write(text)
    configure(node.paths, node.machine)
    return yaml.safe_load(node.paths.patroni_yml.read_text())


def consul(node: Node) -> dict[str, Any]:
    return json.loads(node.paths.consul_json.read_text())


def test_server_is_the_default(node: Node) -> None:
    found = patroni(node, MINIMAL)
    assert found["consul"].items() >= {"host": "127.0.0.1:8500", "register_service": True}.items()
    assert (consul(node)["server"], consul(node)["bootstrap_expect"]) == (True, 1)


def test_servers_of_our_own_believe_nobody_without_a_certificate_and_a_token(node: Node) -> None:
    token = patroni(node, MINIMAL)["consul"]["token"]
    found = consul(node)
    assert all(found[f"verify_{what}"] is True for what in ("incoming_rpc", "outgoing", "server_hostname"))
    acl = found["acl"]
    assert (acl["enabled"], acl["default_policy"], acl["tokens"]["agent"]) == (True, "deny", token)
    management = acl["tokens"]["master"]
    assert management != token
    assert management not in node.paths.patroni_yml.read_text()
    assert node.paths.consul_token.read_text() == management + "\n"
    assert stat.S_IMODE(node.paths.consul_token.stat().st_mode) == 0o600
    assert found["ports"] == {"serf_wan": -1}


def test_a_node_of_before_stays_what_it_was(node: Node) -> None:
    node.of_before()
    found = patroni(node, MINIMAL)
    assert found["consul"] == {"host": "127.0.0.1:8500", "register_service": True}
    assert not {"acl", "ca_file", "ports", "verify_incoming_rpc"} & consul(node).keys()
    assert "ssl" not in found["postgresql"]["parameters"]
    assert "certfile" not in found["restapi"]
    for path in (node.paths.consul_token, node.paths.packet_filter, node.paths.consul_drop_in):
        assert not path.exists()


def test_servers_keep_one_that_does_not_answer(node: Node) -> None:
    """Its removal would take Patroni's lock away before the lock's own time is over."""
    patroni(node, MINIMAL)
    assert consul(node)["autopilot"] == {"cleanup_dead_servers": False}


def test_client_joins_servers_of_others_with_their_gossip_key_only(node: Node) -> None:
    dcs = "dcs: {consul: {mode: client, join: [10.0.0.1, 10.0.0.2], datacenter: east}}\n"
    patroni(node, MINIMAL + NETWORKS + dcs)
    found = consul(node)
    assert (found["server"], found["retry_join"], found["datacenter"]) == (False, ["10.0.0.1", "10.0.0.2"], "east")
    assert found["leave_on_terminate"] is True
    assert not {"autopilot", "bootstrap_expect", "encrypt", "performance"} & set(found)
    patroni(node, f"cluster: a\nsecrets: {{key: {KEY}, gossip: {GOSSIP}}}\n" + NETWORKS + dcs)
    assert consul(node)["encrypt"] == GOSSIP


def test_external_leaves_no_agent_here(node: Node) -> None:
    patroni(node, MINIMAL)
    found = patroni(node, MINIMAL + NETWORKS + "dcs: {consul: {mode: external, host: fd00::5, datacenter: east}}\n")
    assert found["consul"] == {"host": "[fd00::5]:8500", "dc": "east", "register_service": True}
    assert not node.paths.consul_json.exists()


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("consul", "consul"),
        ("consul_1.example.org.", "consul_1.example.org."),
        ("10.0.0.5", "10.0.0.5"),
        ("[fd00::5]", "[fd00::5]"),
        ("3.pool.example", "3.pool.example"),
    ],
)
def test_hosts_of_every_form(node: Node, host: str, shown: str) -> None:
    dcs = f"dcs: {{consul: {{mode: external, host: '{host}'}}}}\n"
    assert patroni(node, MINIMAL + NETWORKS + dcs)["consul"]["host"] == f"{shown}:8500"
    found = patroni(node, MINIMAL + NETWORKS + f"dcs: {{etcd3: {{hosts: ['{host}:2379']}}}}\n")
    assert found["etcd3"]["hosts"] == [f"{shown}:2379"]


def test_external_needs_no_consul_package(node: Node) -> None:
    from conftest import FakeAccounts

    node.accounts = FakeAccounts(missing="consul")
    assert (
        patroni(node, MINIMAL + NETWORKS + "dcs: {consul: {mode: external, host: c, port: 8501}}\n")["consul"]["host"]
        == "c:8501"
    )


def test_a_token_makes_servers_ask_for_one(node: Node) -> None:
    found = patroni(node, f"cluster: a\nsecrets: {{key: {KEY}, consul_token: {KEY}-token}}\n")
    assert found["consul"]["token"] == f"{KEY}-token"
    acl = consul(node)["acl"]
    assert (acl["enabled"], acl["default_policy"]) == (True, "deny")
    assert acl["tokens"] == {"agent": f"{KEY}-token", "master": f"{KEY}-token"}


def test_a_clients_token_is_the_agents(node: Node) -> None:
    secrets = f"cluster: a\nsecrets: {{key: {KEY}, consul_token: {KEY}-token}}\n"
    patroni(node, secrets + NETWORKS + "dcs: {consul: {mode: client, join: [10.0.0.1]}}\n")
    assert consul(node)["acl"] == {"enabled": True, "tokens": {"agent": f"{KEY}-token"}}


def test_etcd(node: Node) -> None:
    secrets = f"cluster: a\nsecrets: {{key: {KEY}, etcd: {KEY}-etcd}}\n"
    hosts = "['10.0.0.1:2379', '[fd00::1]:2379']"
    found = patroni(node, secrets + NETWORKS + f"dcs: {{etcd3: {{hosts: {hosts}, username: patroni}}}}\n")
    assert "consul" not in found
    assert found["etcd3"] == {
        "hosts": ["10.0.0.1:2379", "[fd00::1]:2379"],
        "username": "patroni",
        "password": f"{KEY}-etcd",
    }
    assert not node.paths.consul_json.exists()


def test_the_service_need_not_be_registered(node: Node) -> None:
    assert patroni(node, MINIMAL + "dcs: {consul: {register_service: false}}\n")["consul"]["register_service"] is False


def test_secrets_given_one_by_one_need_no_key(node: Node) -> None:
    names = {name: f"{KEY}-{name}" for name in ("superuser", "replication", "rewind", "restapi")}
    text = yaml.safe_dump({"cluster": "a", "secrets": {**names, "gossip": GOSSIP}})
    with pytest.raises(NodeError, match=r"secrets\.key: is missing: the cluster's own authority .* `tls: off`"):
        patroni(node, text)
    found = patroni(node, text + "tls: off\n")
    users = found["postgresql"]["authentication"]
    assert {kind: user["password"] for kind, user in users.items()} == {
        k: v for k, v in names.items() if k != "restapi"
    }
    assert found["restapi"]["authentication"]["password"] == names["restapi"]
    assert consul(node)["encrypt"] == GOSSIP


def test_one_given_secret_wins_over_the_derived_one(node: Node) -> None:
    found = patroni(node, f"cluster: a\nsecrets: {{key: {KEY}, rewind: {KEY}-rewind}}\n")
    users = found["postgresql"]["authentication"]
    assert users["rewind"]["password"] == f"{KEY}-rewind"
    assert users["superuser"]["password"] not in (KEY, f"{KEY}-rewind")


def test_secrets_from_a_file_and_from_a_credential(node: Node) -> None:
    plain = patroni(node, MINIMAL)
    for place in ("etc/keys/cluster", "run/credentials/@system/cluster"):
        path = node.paths.root / place
        path.parent.mkdir(parents=True)
        path.write_text(KEY + "\n")
        path.chmod(0o600)
    for source in ("{file: /etc/keys/cluster}", "{credential: cluster}"):
        assert patroni(node, f"cluster: pg-15-cluster\nsecrets: {{key: {source}}}\n") == plain
    (node.paths.root / "etc/keys/cluster").chmod(0o644)
    with pytest.raises(NodeError, match=r"secrets\.key: /etc/keys/cluster may be read by everybody"):
        patroni(node, "cluster: pg-15-cluster\nsecrets: {key: {file: /etc/keys/cluster}}\n")
    (node.paths.root / "etc/keys/cluster").chmod(0o600)
    (node.paths.root / "etc/keys/cluster").write_text("\n")
    with pytest.raises(NodeError, match=r"secrets\.key: is empty"):
        patroni(node, "cluster: pg-15-cluster\nsecrets: {key: {file: /etc/keys/cluster}}\n")
    (node.paths.root / "etc/keys/cluster").write_text("postgrespostgres\n")
    with pytest.raises(NodeError, match=r"secrets\.key: is a well-known") as caught:
        patroni(node, "cluster: pg-15-cluster\nsecrets: {key: {file: /etc/keys/cluster}}\n")
    assert "postgrespostgres" not in str(caught.value)


def test_tuning_tags_callbacks_and_watchdog_reach_patroni(node: Node) -> None:
    found = patroni(
        node,
        MINIMAL + "tags: {nofailover: true, rack: a1}\nwatchdog: required\n"
        "callbacks: {on_role_change: /usr/local/bin/notify --all}\n"
        "tuning: {max_connections: 250, parameters: {jit: off, work_mem: 8MB}}\n",
    )
    assert found["tags"] == {"nofailover": True, "rack": "a1"}
    assert found["watchdog"]["mode"] == "required"
    assert found["postgresql"]["callbacks"] == {"on_role_change": "/usr/local/bin/notify --all"}
    assert found["postgresql"]["parameters"]["work_mem"] == "8MB"
    assert found["postgresql"]["parameters"]["shared_buffers"] == "1GB"
    assert found["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"] == 250


def test_tuning_can_be_switched_off(node: Node) -> None:
    found = patroni(node, MINIMAL + "tuning: false\nwatchdog: off\n")
    ssl = {"ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file"}
    assert set(found["postgresql"]["parameters"]) == {"unix_socket_directories", *ssl}
    assert found["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"] == 100
    assert found["watchdog"]["mode"] == "off"


def test_sizes_follow_the_machine_at_the_next_boot(node: Node) -> None:
    patroni(node, MINIMAL)
    node.memory(8192)
    assert patroni(node, MINIMAL)["postgresql"]["parameters"]["shared_buffers"] == "2GB"


def test_a_machine_without_a_known_size_is_asked_for(node: Node) -> None:
    (node.paths.root / "proc/meminfo").unlink()
    with pytest.raises(NodeError, match=r"tuning\.memory: is missing"):
        patroni(node, MINIMAL)
    assert patroni(node, MINIMAL + "tuning: {memory: 2GB}\n")["postgresql"]["parameters"]["shared_buffers"] == "512MB"


def test_restart_is_a_drop_in_and_units_are_read_again_only_then(node: Node) -> None:
    patroni(node, MINIMAL)
    assert not node.paths.restart_drop_in.exists()
    # Consul's own drop-in is new.
    assert node.reloads == 1
    node.reloads = 0
    patroni(node, MINIMAL + "restart: no\n")
    assert "Restart=no" in node.paths.restart_drop_in.read_text().splitlines()
    patroni(node, MINIMAL + "restart: no\n")
    assert node.reloads == 1
    patroni(node, MINIMAL)
    assert (node.paths.restart_drop_in.exists(), node.reloads) == (False, 2)
