"""Which packets the text for nft lets in, told by reading it; ../test_packet_filter.py sends real ones."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml
from conftest import MINIMAL, FakeAccounts, Node
from hypothesis import given
from hypothesis import strategies as st

from patroni_node import packet_filter, render, settings
from patroni_node.decide import decide
from patroni_node.document import Document, parse
from patroni_node.errors import NodeError
from patroni_node.network import IP, Network
from patroni_node.packet_filter import Ports, consul_addresses, listening, ruleset

OWN = ipaddress.ip_address("10.129.0.21")
PEERS = (ipaddress.ip_address("10.129.0.22"), ipaddress.ip_address("fd00:129::23"))


def net(text: str) -> Network:
    return ipaddress.ip_network(text)


def rules(script: str, chain: str) -> list[str]:
    body = script.split(f"chain {chain} {{\n")[1].split("\n    }\n")[0]
    return [line.strip() for line in body.splitlines()]


def elements(rule: str) -> list[str]:
    return rule.split("{ ")[1].split(" }")[0].split(", ")


def accepted(script: str) -> list[Network]:
    return [net(text) for rule in rules(script, "ask") if rule.endswith(" accept") for text in elements(rule)]


def test_members_and_networks_are_asked_about_and_nobody_else_gets_in() -> None:
    script = ruleset([net("10.130.7.0/24")], PEERS, OWN, consul=True)
    assert accepted(script) == [net("10.129.0.22/32"), net("10.130.7.0/24"), net("fd00:129::23/128")]
    assert rules(script, "ask")[-1] == "goto refuse"
    assert rules(script, "refuse")[-1] == "drop"


def test_each_port_of_a_node_with_an_agent_is_named() -> None:
    script = ruleset([], PEERS, OWN, consul=True, ports=Ports(6432, 8009))
    asked = [rule for rule in rules(script, "input") if rule.endswith("goto ask")]
    assert asked == ["tcp dport { 6432, 8009, 8300, 8301 } goto ask", "udp dport 8301 goto ask"]
    refused = [rule for rule in rules(script, "input") if rule.endswith("goto refuse")]
    assert refused == ["tcp dport { 8302, 8500-8502, 8600 } goto refuse", "udp dport { 8302, 8600 } goto refuse"]


def test_an_agent_that_is_not_ours_is_left_alone() -> None:
    script = ruleset([net("10.129.0.0/24")], (), OWN, consul=False)
    assert [rule for rule in rules(script, "input") if "dport" in rule] == ["tcp dport { 5432, 8008 } goto ask"]


def test_gossip_can_be_left_to_its_key_and_requests_cannot() -> None:
    script = ruleset([], PEERS, OWN, consul=True, gossip_from_anywhere=True)
    assert "8301" not in script
    assert "8300" in script and "8500-8502" in script


def test_the_script_replaces_our_table_and_names_no_other() -> None:
    lines = ruleset([], PEERS, OWN, consul=True).splitlines()
    assert lines[1:4] == ["table inet patroni_node", "delete table inet patroni_node", "table inet patroni_node {"]
    assert not any("flush" in line or ("table" in line and "inet patroni_node" not in line) for line in lines[1:])


@pytest.mark.parametrize("own", ["10.129.0.21", "fd00:129::21"])
def test_an_address_that_no_wire_can_bear_is_refused_before_networks_are_looked_at(own: str) -> None:
    everywhere = [net("0.0.0.0/0"), net("::/0")]
    ask = rules(ruleset(everywhere, (), ipaddress.ip_address(own), consul=True), "ask")
    lies = [net(text) for rule in ask[:2] for text in elements(rule)]
    assert all(rule.endswith("goto refuse") for rule in ask[:2])
    assert {net("127.0.0.0/8"), net("::1/128"), net("::ffff:0:0/96"), net(own)} == set(lies)


addresses = st.ip_addresses()
networks = st.builds(
    lambda ip, bits: ipaddress.ip_network(f"{ip}/{min(bits, ip.max_prefixlen)}", strict=False),
    addresses,
    st.integers(0, 128),
)


@given(st.lists(networks, max_size=12), st.lists(addresses, max_size=9), addresses, addresses)
def test_an_address_gets_in_exactly_if_it_is_in_networks_or_join(
    given: list[Network], peers: list[IP], own: IP, who: IP
) -> None:
    found = accepted(ruleset(given, peers, own, consul=True))
    wanted = who in peers or any(who in network for network in given)
    assert any(who in network for network in found) == wanted
    # nft refuses intervals that overlap.
    assert not any(a is not b and a.version == b.version and a.overlaps(b) for a in found for b in found)  # type: ignore[arg-type]


def test_consul_may_speak_with_itself_its_members_and_nobody_else() -> None:
    text = consul_addresses([net("10.129.0.0/24"), net("fd00:129::/64")], PEERS, ipaddress.ip_address("192.0.2.1"))
    assert text.splitlines()[1:] == [
        "[Service]",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost 10.129.0.0/24 192.0.2.1/32 fd00:129::/64",
    ]


def ports(patroni: dict[str, Any]) -> Ports:
    return listening(patroni, Document().problem)


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        ("0.0.0.0:5432", 5432),
        ("0.0.0.0,[::]:6432", 6432),
        ("10.129.0.21", 5432),
        # So it is for Patroni: it takes what follows the last colon.
        ("fd00:129::21", 21),
        ("[::]: 6432", 6432),
    ],
)
def test_the_port_is_the_one_that_patroni_reads(listen: str, port: int) -> None:
    assert ports({"postgresql": {"listen": listen}, "restapi": {"listen": "[::]:8009"}}) == Ports(port, 8009)


@pytest.mark.parametrize("listen", [None, "", 5432, ["0.0.0.0:5432"], "0.0.0.0:", "0.0.0.0:0", "0.0.0.0:65536", "[::]"])
def test_a_port_that_cannot_be_told_is_refused(listen: object) -> None:
    document = parse("patroni:\n  postgresql:\n    listen: x\n", "node.yml")
    with pytest.raises(NodeError) as refused:
        listening({"postgresql": {"listen": listen}, "restapi": {"listen": listen}}, document.problem)
    assert [str(problem) for problem in refused.value.problems] == [
        "node.yml:3: patroni.postgresql.listen: names no port: write address and port, as in 0.0.0.0:5432",
        "node.yml:1: patroni.restapi.listen: names no port: write address and port, as in 0.0.0.0:8008",
    ]


def test_a_rest_api_without_a_port_is_refused_as_patroni_would_die_of_it() -> None:
    with pytest.raises(NodeError, match=r"patroni\.restapi\.listen: names no port"):
        ports({"postgresql": {"listen": "0.0.0.0"}, "restapi": {"listen": "0.0.0.0"}})


@pytest.mark.parametrize(
    "patroni", ["", "patroni: {postgresql: {listen: '0.0.0.0:6432'}, restapi: {listen: '[::]:1'}}"]
)
def test_the_ports_of_a_rendered_patroni_yml_can_be_told(node: Node, patroni: str) -> None:
    node.write(MINIMAL + patroni)
    targets = {target.path: target.content for target in decide(node.paths, node.machine).targets}
    rendered = yaml.safe_load(targets[node.paths.patroni_yml] or b"")
    assert ports(rendered) == (Ports(6432, 1) if patroni else Ports())


def test_consul_listens_where_the_filter_expects_it(node: Node) -> None:
    node.write(MINIMAL)
    targets = {target.path: target.content for target in decide(node.paths, node.machine).targets}
    agent = yaml.safe_load(targets[node.paths.consul_json] or b"")
    changed = set(agent.get("ports", {}).values()) - {-1}
    assert changed <= {packet_filter.CONSUL_RPC, packet_filter.CONSUL_GOSSIP}


def whole(node: Node, more: str, *, gossip_key: bool = True) -> tuple[str, str | None]:
    node.write(MINIMAL + more)
    wanted = settings.load(node.paths)
    patroni = {"postgresql": {"listen": "0.0.0.0:5432"}, "restapi": {"listen": "0.0.0.0:8008"}}
    return packet_filter.for_node(wanted, render.permitted(wanted, OWN), OWN, patroni, gossip_key=gossip_key)


def test_a_server_is_open_to_networks_and_join_and_speaks_with_them_only(node: Node) -> None:
    script, drop_in = whole(node, "networks: [10.130.7.0/24]\ndcs: {consul: {join: [10.129.0.21, 10.129.0.22]}}\n")
    # Its own address, which `permitted` adds, comes through lo; from a wire it is refused before.
    assert accepted(script) == [net("10.129.0.21/32"), net("10.129.0.22/32"), net("10.130.7.0/24")]
    assert drop_in is not None and "IPAddressAllow=localhost 10.129.0.21/32 10.129.0.22/32 10.130.7.0/24" in drop_in


@pytest.mark.parametrize("gossip_key", [True, False])
def test_a_client_hears_the_gossip_of_a_datacenter_if_it_has_its_key(node: Node, gossip_key: bool) -> None:
    more = "networks: [10.130.7.0/24]\ndcs: {consul: {mode: client, join: [10.129.0.31]}}\n"
    script, drop_in = whole(node, more, gossip_key=gossip_key)
    assert ("8301" in script) != gossip_key
    assert net("10.129.0.31/32") in accepted(script)
    assert drop_in is None


@pytest.mark.parametrize("dcs", ["consul: {mode: external, host: 127.0.0.1}", "etcd3: {hosts: ['10.129.0.31:2379']}"])
def test_a_store_elsewhere_has_no_ports_here(node: Node, dcs: str) -> None:
    script, drop_in = whole(node, f"networks: [10.129.0.0/24]\ndcs: {{{dcs}}}\n")
    assert [rule for rule in rules(script, "input") if "dport" in rule] == ["tcp dport { 5432, 8008 } goto ask"]
    assert drop_in is None


@pytest.mark.parametrize("dcs", ["", "dcs: {etcd3: {hosts: ['10.129.0.31:2379']}}\n"])
def test_whose_the_ports_are_is_known_on_every_node(node: Node, dcs: str) -> None:
    node.accounts = FakeAccounts()
    node.write(MINIMAL + "networks: [10.129.0.0/24]\n" + dcs)
    targets = {target.path: target.content for target in decide(node.paths, node.machine).targets}
    script = (targets[node.paths.packet_filter] or b"").decode()
    whose = {name: rules(script, name)[0] for name in ("answer_agent", "answer_database") if f"chain {name}" in script}
    wanted = {"answer_database": "meta skuid 101 accept"}
    assert whose == wanted if dcs else {**wanted, "answer_agent": "meta skuid 102 accept"}
    assert rules(script, "output")[1] == "tcp sport { 5432, 8008 } tcp flags & syn == syn goto answer_database"
