"""What a node is made of: the rows of the list of traps that a rendered file can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import KEY, MINIMAL, FakeIp, Node

from patroni_node import derivation, settings
from patroni_node.configure import configure
from patroni_node.document import merge
from patroni_node.errors import NodeError

JOIN = "dcs: {consul: {join: [10.129.0.21, 10.129.0.22, 10.129.0.23]}}\n"
NETWORKS = "networks: [10.129.0.0/24, 192.168.7.0/24]\n"


def rendered(node: Node, text: str = MINIMAL) -> tuple[dict[str, Any], dict[str, Any]]:
    node.write(text)
    configure(node.paths, node.machine)
    return yaml.safe_load(node.paths.patroni_yml.read_text()), json.loads(node.paths.consul_json.read_text())


def test_trap_1_initdb_is_where_patroni_reads_it(node: Node) -> None:
    patroni, _ = rendered(node)
    assert "initdb" not in patroni
    initdb = patroni["bootstrap"]["initdb"]
    assert {"encoding": "UTF8"} in initdb and {"locale": "C.UTF-8"} in initdb and "data-checksums" in initdb


def test_trap_2_credentials_are_in_today_s_layout(node: Node) -> None:
    patroni, _ = rendered(node)
    users = {kind: user["username"] for kind, user in patroni["postgresql"]["authentication"].items()}
    assert users == {"superuser": "postgres", "replication": "replicator", "rewind": "rewind"}
    assert set(patroni["restapi"]["authentication"]) == {"username", "password"}
    assert "auth" not in patroni["restapi"]


def test_trap_3_and_4_parameters_of_postgresql_15(node: Node) -> None:
    parameters = rendered(node)[0]["bootstrap"]["dcs"]["postgresql"]["parameters"]
    assert parameters["wal_level"] == "replica"
    assert parameters["wal_keep_size"] == "128MB"
    assert parameters["archive_mode"] == "off"
    assert not {"wal_keep_segments", "archive_timeout", "archive_command"} & set(parameters)


def test_trap_5_nobody_is_trusted(node: Node) -> None:
    rules = [rule.split() for rule in rendered(node, MINIMAL + NETWORKS)[0]["postgresql"]["pg_hba"]]
    assert {rule[-1] for rule in rules} == {"peer", "scram-sha-256"}
    assert all(rule[-1] == "scram-sha-256" for rule in rules if rule[0] == "host")
    assert {rule[3] for rule in rules if rule[0] == "host"} == {"127.0.0.1/32", "::1/128"}
    for network in ("10.129.0.0/24", "192.168.7.0/24"):
        assert ["hostssl", "replication", "replicator", network, "scram-sha-256"] in rules
        assert ["hostssl", "postgres", "rewind", network, "scram-sha-256"] in rules
        assert ["hostssl", "all", "all", network, "scram-sha-256"] in rules
    assert "pg_hba" not in rendered(node)[0]["bootstrap"]["dcs"]["postgresql"], "networks must be free to change"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"10.129.0.21/32"}),
        (JOIN, {"10.129.0.21/32", "10.129.0.22/32", "10.129.0.23/32"}),
        ("networks: [10.129.0.0/24]\n", {"10.129.0.0/24"}),
        ("networks: [192.168.0.0/16]\n", {"10.129.0.21/32", "192.168.0.0/16"}),
        ("networks: [192.168.0.7]\n" + JOIN, {"10.129.0.21/32", "192.168.0.7/32"}),
    ],
)
def test_who_may_connect(node: Node, text: str, expected: set[str]) -> None:
    rules = [rule.split() for rule in rendered(node, MINIMAL + text)[0]["postgresql"]["pg_hba"]]
    assert {rule[3] for rule in rules if rule[0] == "hostssl" and rule[1] == "replication"} == expected


def test_trap_6_passwords_are_derived(node: Node) -> None:
    patroni, consul = rendered(node)
    derived = derivation.derive(KEY, "pg-15-cluster", 2)
    assert patroni["postgresql"]["authentication"]["superuser"]["password"] == derived.passwords["superuser"]
    assert patroni["postgresql"]["authentication"]["replication"]["password"] == derived.passwords["replication"]
    assert patroni["postgresql"]["authentication"]["rewind"]["password"] == derived.passwords["rewind"]
    assert patroni["restapi"]["authentication"]["password"] == derived.passwords["restapi"]
    assert consul["encrypt"] == derived.gossip
    assert KEY not in node.paths.patroni_yml.read_text() + node.paths.consul_json.read_text()


def test_trap_11_watchdog(node: Node) -> None:
    assert rendered(node)[0]["watchdog"] == {"mode": "automatic", "device": "/dev/watchdog", "safety_margin": 5}


def test_trap_17_consul_is_local_and_encrypted(node: Node) -> None:
    patroni, consul = rendered(node)
    assert patroni["consul"]["host"] == "127.0.0.1:8500"
    assert consul["client_addr"] == "127.0.0.1"
    assert consul["encrypt"]


def test_trap_21_patroni_reaches_its_own_postgresql(node: Node) -> None:
    postgresql = rendered(node)[0]["postgresql"]
    assert postgresql["use_unix_socket"] is True
    assert postgresql["use_unix_socket_repl"] is True
    assert postgresql["parameters"]["unix_socket_directories"] == "/var/run/postgresql"
    assert "local all all peer" in postgresql["pg_hba"]
    assert "local replication replicator scram-sha-256" in postgresql["pg_hba"]


def test_a_cluster_of_one(node: Node) -> None:
    patroni, consul = rendered(node)
    assert (patroni["scope"], patroni["name"]) == ("pg-15-cluster", "pg-srv1")
    assert patroni["postgresql"]["connect_address"] == "10.129.0.21:5432"
    assert patroni["restapi"]["connect_address"] == "10.129.0.21:8008"
    assert (consul["bootstrap_expect"], consul["retry_join"], consul["server"]) == (1, [], True)
    assert (consul["bind_addr"], consul["node_name"], consul["datacenter"]) == ("10.129.0.21", "pg-srv1", "dc1")


@pytest.mark.parametrize(
    ("dcs", "expect", "join"),
    [
        ("join: [10.129.0.21, 10.129.0.22, 10.129.0.23]", 3, ["10.129.0.22", "10.129.0.23"]),
        ("join: [10.129.0.22, 10.129.0.23]", 3, ["10.129.0.22", "10.129.0.23"]),
        ("join: [10.129.0.22], expect: 5", 5, ["10.129.0.22"]),
        ("join: [10.129.0.21]", 1, []),
        ("join: ['fd00::22']", 2, ["[fd00::22]"]),
        ("mode: server", 1, []),
    ],
)
def test_servers_are_counted_once(node: Node, dcs: str, expect: int, join: list[str]) -> None:
    _, consul = rendered(node, MINIMAL + f"dcs: {{consul: {{{dcs}}}}}\n")
    assert (consul["bootstrap_expect"], consul["retry_join"]) == (expect, join)


def test_ipv6_only(node: Node) -> None:
    node.ip = FakeIp({"eth0": ["fd00::21", "fe80::1"]}, [], ["eth0"])
    patroni, consul = rendered(node)
    assert patroni["postgresql"]["connect_address"] == "[fd00::21]:5432"
    assert patroni["restapi"]["connect_address"] == "[fd00::21]:8008"
    assert (patroni["postgresql"]["listen"], patroni["restapi"]["listen"]) == ("[::]:5432", "[::]:8008")
    assert consul["bind_addr"] == "fd00::21"
    assert "hostssl all all fd00::21/128 scram-sha-256" in patroni["postgresql"]["pg_hba"]


def test_both_families_where_a_network_needs_the_other(node: Node) -> None:
    postgresql = rendered(node, MINIMAL + "networks: ['fd00::/64']\n")[0]["postgresql"]
    assert postgresql["listen"] == "0.0.0.0,[::]:5432"


def test_drop_ins_merge_in_order_and_null_removes(node: Node) -> None:
    node.write("networks: [192.168.1.0/24]\npatroni: {tags: {nofailover: true}}\n", "10-site.yml")
    node.write("name: null\nnetworks: [192.168.2.0/24]\npatroni: {watchdog: {device: null}}\n", "20-more.yml")
    patroni, _ = rendered(node, MINIMAL + "name: given\n")
    assert patroni["name"] == "pg-srv1"
    assert "192.168.1.0/24" not in str(patroni) and "192.168.2.0/24" in str(patroni)
    assert patroni["tags"] == {"nofailover": True}
    assert patroni["watchdog"] == {"mode": "automatic", "safety_margin": 5}


def test_patroni_merges_deep_over_the_result(node: Node) -> None:
    extra = "patroni:\n  watchdog: {mode: required}\n  bootstrap: {dcs: {ttl: 60}}\n  postgresql: {pgpass: null}\n"
    plain, _ = rendered(node)
    patroni, _ = rendered(node, MINIMAL + extra)
    assert patroni["watchdog"]["mode"] == "required"
    assert patroni["bootstrap"]["dcs"]["ttl"] == 60
    assert "pgpass" not in patroni["postgresql"]
    assert patroni["bootstrap"]["initdb"] == plain["bootstrap"]["initdb"]
    assert node.paths.patroni_yml.read_text().startswith("# Written by patroni-node")


def test_merge_changes_neither_argument() -> None:
    base, over = {"a": {"b": 1}}, {"a": {"c": None, "b": None}, "d": {"e": None}}
    assert merge(base, over) == {"a": {}, "d": {}}
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": None, "b": None}, "d": {"e": None}})


def test_yaml_1_1_surprises(node: Node) -> None:
    patroni, _ = rendered(node, MINIMAL + "patroni: {tags: {a: 2026-01-01, b: 12:30, c: 1.5, d: .inf, e: .nan}}\n")
    assert patroni["tags"] == {"a": "2026-01-01", "b": "12:30", "c": 1.5, "d": ".inf", "e": ".nan"}


def test_patroni_reads_the_very_values_that_were_given(node: Node) -> None:
    """What JSON writes in another way than YAML 1.1 reads it."""
    tags = {"rack": "é😀'\"<&>\\ud83d\u2028", "small": 1e-07, "large": 1e16, "no": "no", "n": True}
    parameters = {"on": "😀", "seq_page_cost": 1.5e-05}
    text = yaml.safe_dump({"tags": tags, "tuning": {"parameters": parameters}}, allow_unicode=True)
    patroni, _ = rendered(node, MINIMAL + text)
    assert patroni["tags"] == tags
    assert parameters.items() <= patroni["postgresql"]["parameters"].items()
    odd = {"next line": "a\x85b", "separator": "a\u2028b", "rack": "é😀"}
    merged, _ = rendered(node, MINIMAL + yaml.safe_dump({"patroni": {"tags": odd}}))
    assert merged["tags"] == odd


def test_settings_hide_their_secret(node: Node) -> None:
    node.write(MINIMAL)
    assert KEY not in repr(settings.load(node.paths))


EXAMPLES = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["files/usr/share/patroni-node/node.example.yml", "single.yaml"])
def test_examples_need_only_a_key(tmp_path: Path, node: Node, name: str) -> None:
    path = EXAMPLES / (name if "/" in name else f"templates/user-data/{name}")
    text = path.read_text()
    if "/" not in name:
        (written,) = yaml.safe_load(text)["write_files"]
        assert (written["path"], written["permissions"]) == ("/etc/patroni/node.yml", "0600")
        text = written["content"]
    node.write(text)
    with pytest.raises(NodeError, match="well-known or example") as caught:
        settings.load(node.paths)
    assert len(caught.value.problems) == 1
    node.write(text.replace("replace-with-a-long-random-key", KEY))
    assert configure(node.paths, node.machine).name == "pg-srv1"
