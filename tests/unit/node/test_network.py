"""Which address is this node's."""

from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from conftest import MINIMAL, FakeIp, Node

from patroni_node import network
from patroni_node.configure import configure
from patroni_node.errors import AddressAbsentError, NodeError
from patroni_node.network import AddressChoice

ONE = {"lo": ["127.0.0.1", "::1"], "eth0": ["10.0.0.5", "fe80::5"]}
TWO = {"lo": ["127.0.0.1"], "eth0": ["10.0.0.5"], "eth1": ["10.129.0.21", "fd00::21"]}
SIX = {"lo": ["::1"], "eth0": ["fd00::5", "fe80::5"]}
MANY = {"eth0": ["10.0.0.5", "10.0.0.6"]}


def literal(text: str) -> AddressChoice:
    return AddressChoice(literal=ipaddress.ip_address(text))


def cidr(text: str) -> AddressChoice:
    return AddressChoice(cidr=ipaddress.ip_network(text))


DEFAULT = AddressChoice()
ETH1 = AddressChoice(interface="eth1")


@pytest.mark.parametrize(
    ("choice", "ip", "expected"),
    [
        (DEFAULT, FakeIp(ONE, ["eth0"]), "10.0.0.5"),
        (DEFAULT, FakeIp(TWO, ["eth1"]), "10.129.0.21"),
        (DEFAULT, FakeIp(TWO, ["eth0"], ["eth1"]), "10.0.0.5"),
        (DEFAULT, FakeIp(SIX, [], ["eth0"]), "fd00::5"),
        (DEFAULT, FakeIp(SIX, ["eth0"], ["eth0"]), "fd00::5"),
        (DEFAULT, FakeIp(ONE), "10.0.0.5"),
        (DEFAULT, FakeIp(ONE, ["eth0", "eth0"]), "10.0.0.5"),
        (ETH1, FakeIp(TWO, ["eth0"]), "10.129.0.21"),
        (AddressChoice(interface="eth0"), FakeIp(SIX), "fd00::5"),
        (cidr("10.129.0.0/24"), FakeIp(TWO, ["eth0"]), "10.129.0.21"),
        (cidr("fd00::/64"), FakeIp(TWO, ["eth0"]), "fd00::21"),
        (cidr("0.0.0.0/0"), FakeIp(ONE), "10.0.0.5"),
        (literal("fd00::21"), FakeIp(TWO, ["eth0"]), "fd00::21"),
        (literal("10.0.0.6"), FakeIp(MANY), "10.0.0.6"),
    ],
)
def test_chosen(choice: AddressChoice, ip: FakeIp, expected: str) -> None:
    assert str(network.choose(choice, network.read_host(ip), "node.yml")) == expected


@pytest.mark.parametrize(
    ("choice", "ip", "said"),
    [
        (DEFAULT, FakeIp(MANY, ["eth0"]), "several addresses .10.0.0.5, 10.0.0.6.: set `address:`"),
        (DEFAULT, FakeIp(TWO, ["eth0", "eth1"]), r"eth0 and eth1: set `address: \{interface: eth0\}`"),
        (DEFAULT, FakeIp(TWO), "no default route"),
        (cidr("0.0.0.0/0"), FakeIp(TWO), "several addresses"),
        (AddressChoice(interface="eth0"), FakeIp(MANY), "several addresses"),
    ],
)
def test_several(choice: AddressChoice, ip: FakeIp, said: str) -> None:
    with pytest.raises(NodeError, match=said) as caught:
        network.choose(choice, network.read_host(ip), "node.yml")
    assert not isinstance(caught.value, AddressAbsentError)


@pytest.mark.parametrize(
    ("choice", "ip", "said"),
    [
        (DEFAULT, FakeIp({"lo": ["127.0.0.1"]}), "which has no default route"),
        (DEFAULT, FakeIp({"lo": ["127.0.0.1"], "eth0": []}, ["eth0"]), "no usable address"),
        (ETH1, FakeIp(ONE), "no interface eth1; this machine has eth0"),
        (cidr("192.168.0.0/24"), FakeIp(ONE), r"192.168.0.0/24 has no usable.*10.0.0.5 \(eth0\)"),
        (literal("10.0.0.99"), FakeIp(ONE), "10.0.0.99 is on no interface"),
    ],
)
def test_absent(choice: AddressChoice, ip: FakeIp, said: str) -> None:
    with pytest.raises(AddressAbsentError, match=said):
        network.choose(choice, network.read_host(ip), "node.yml")


@pytest.mark.parametrize("flag", ["deprecated", "temporary", "tentative", "dadfailed"])
def test_addresses_that_will_not_stay(flag: str) -> None:
    ip = FakeIp({"eth0": ["fd00::5", "fd00::6"]})
    ip.links[0]["addr_info"][0][flag] = True  # type: ignore[index]
    assert str(network.choose(DEFAULT, network.read_host(ip), "f")) == "fd00::6"


def test_interfaces_that_are_down_do_not_count() -> None:
    ip = FakeIp(TWO)
    ip.links[1]["flags"] = []
    assert str(network.choose(cidr("10.0.0.0/8"), network.read_host(ip), "f")) == "10.129.0.21"


def test_multipath_default_route() -> None:
    ip = FakeIp(TWO)

    def answer(arguments: list[str]) -> str:
        if "-4" in arguments:
            return '[{"dst":"default","nexthops":[{"dev":"eth0"},{"dev":"eth1"}]}]'
        return ip(arguments)

    with pytest.raises(NodeError, match="eth0 and eth1"):
        network.choose(DEFAULT, network.read_host(answer), "f")


def test_address_is_read_anew_at_every_boot(node: Node) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    node.ip = FakeIp({"eth0": ["10.129.0.99"]}, ["eth0"])
    outcome = configure(node.paths, node.machine)
    assert (outcome.name, str(outcome.address)) == ("pg-srv1", "10.129.0.99")
    assert "10.129.0.21" not in node.paths.patroni_yml.read_text() + node.paths.consul_json.read_text()


def test_waits_for_a_lease_that_comes_late(node: Node) -> None:
    node.write(MINIMAL)
    late = node.ip
    node.ip = FakeIp({"eth0": []}, ["eth0"])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            node.ip.links = late.links

    machine = replace(node.machine, sleep=sleep, clock=lambda: float(len(slept)))
    assert str(configure(node.paths, machine, wait=30).address) == "10.129.0.21"
    assert len(slept) == 3


def test_waits_no_longer_than_told(node: Node) -> None:
    node.write(MINIMAL)
    node.ip = FakeIp({"eth0": []}, ["eth0"])
    slept: list[float] = []
    machine = replace(node.machine, sleep=slept.append, clock=lambda: float(len(slept)))
    with pytest.raises(AddressAbsentError):
        configure(node.paths, machine, wait=5)
    assert len(slept) == 5


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (FileNotFoundError(), "apt install iproute2"),
        (subprocess.CalledProcessError(1, "ip"), "CalledProcessError"),
        (subprocess.TimeoutExpired("ip", 10), "TimeoutExpired"),
    ],
)
def test_ip_that_fails(monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(NodeError, match=said):
        network.run_ip(["-j", "addr"])


def test_ip_without_json() -> None:
    with pytest.raises(NodeError, match="no JSON"):
        network.read_host(lambda _: "1: lo: <LOOPBACK>")
