"""Which protection a node takes: a cluster of before stays what it is, and nobody talks a new node out of its own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from conftest import KEY, MINIMAL, Node

from patroni_node import derivation, rest, scram, security
from patroni_node.configure import configure
from patroni_node.errors import NodeError
from patroni_node.network import IP
from patroni_node.rest import Answer
from patroni_node.security import Peer

JOIN = "dcs: {consul: {join: [10.129.0.21, 10.129.0.22, 10.129.0.23]}}\n"
OTHER = ip_address("10.129.0.22")


def version(node: Node, text: str = MINIMAL + JOIN) -> int | None:
    node.write(text)
    configure(node.paths, node.machine)
    return security.read(node.paths)


def peer(node: Node, *, plain: bool, proved: bool) -> None:
    node.peers[str(OTHER)] = Peer(OTHER, plain=plain, proved=proved)


def with_data(node: Node) -> None:
    node.paths.data_dir.mkdir(parents=True)
    (node.paths.data_dir / "PG_VERSION").write_text("15\n")


def test_a_new_cluster_is_protected(node: Node) -> None:
    assert version(node) == 2
    assert version(node, MINIMAL) == 2


def test_a_new_machine_for_a_cluster_of_before_is_as_the_others(node: Node) -> None:
    peer(node, plain=True, proved=True)
    assert version(node) == 1
    assert not node.paths.consul_token.exists()


def test_who_proves_nothing_is_not_believed(node: Node) -> None:
    """Else anybody on the network could have a node start with no protection."""
    peer(node, plain=True, proved=False)
    node.write(MINIMAL + JOIN)
    with pytest.raises(NodeError, match=r"tls: is not set, and 10\.129\.0\.22 answers .* proves nothing: write `tls:`"):
        configure(node.paths, node.machine)
    assert not node.paths.patroni_yml.exists()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("", derivation.derive(KEY, "pg-15-cluster", 1).passwords["replication"]),
        (", replication: cHnEq2v0rXwqL9", None),
    ],
)
def test_a_given_password_is_no_proof_of_the_version(node: Node, given: str, asked: str | None) -> None:
    """Protected members know it as well, so a stranger who relays to one of them would have a node start without."""
    passwords: list[str | None] = []

    def look(ip: IP, cluster: str, password: str | None) -> Peer:
        passwords.append(password)
        return Peer(ip, plain=False, proved=password is not None)

    node.write(f"cluster: pg-15-cluster\nsecrets: {{key: {KEY}{given}}}\n{JOIN}")
    configure(node.paths, replace(node.machine, look=look))
    assert set(passwords) == {asked}
    assert security.read(node.paths) == (1 if asked else 2)


@pytest.mark.parametrize("word", ["auto", "off"])
def test_who_asks_for_protection_asks_nobody(node: Node, word: str) -> None:
    peer(node, plain=True, proved=True)
    assert version(node, MINIMAL + JOIN + f"tls: {word}\n") == 2


def test_before_there_is_data_others_are_asked_at_each_boot(node: Node) -> None:
    """The members of before may have been down at the first one."""
    assert version(node) == 2
    peer(node, plain=True, proved=True)
    assert version(node) == 1


def test_with_data_nobody_is_asked_any_more(node: Node) -> None:
    assert version(node) == 2
    with_data(node)
    peer(node, plain=True, proved=True)
    assert version(node) == 2


def test_a_node_that_ran_before_stays_and_says_so(node: Node) -> None:
    node.of_before()
    assert version(node) == 1
    assert version(node) == 1
    node.write(MINIMAL + JOIN + "tls: auto\n")
    with pytest.raises(NodeError, match=r"tls: is for a cluster with the protection of today"):
        configure(node.paths, node.machine)


def test_a_cluster_of_before_can_be_named(node: Node) -> None:
    text = MINIMAL + "networks: [10.129.0.0/24]\ndcs: {etcd3: {hosts: ['10.0.0.5:2379']}}\n"
    assert version(node, text + "compatibility: 1\n") == 1
    node.paths.identity.unlink()
    node.paths.security.unlink()
    assert version(node, text) == 2
    with_data(node)
    node.write(text + "compatibility: 1\n")
    with pytest.raises(NodeError, match=r"compatibility: is for a cluster of before, which this one is not any more"):
        configure(node.paths, node.machine)


def test_two_answers_contradict_each_other(node: Node) -> None:
    node.write(MINIMAL + "tls: auto\ncompatibility: 1\n")
    with pytest.raises(NodeError, match="keep one of the two"):
        configure(node.paths, node.machine)


@pytest.mark.parametrize("text", ["", "{}", '{"version": 3}', '{"version": "2"}', "[2]", "\x00"])
def test_a_damaged_state_is_refused(node: Node, text: str) -> None:
    assert version(node) == 2
    node.paths.security.write_text(text)
    with pytest.raises(NodeError, match=r"security\.json: is damaged: write `tls: auto`"):
        configure(node.paths, node.machine)


def test_what_a_peer_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def proves(host: str, port: int, user: str, password: str, timeout: float) -> bool:
        asked.append((host, port, user, password))
        return password == derivation.derive("a key", "pg", 1).passwords["replication"]

    def answer(question: rest.Question) -> Answer:
        asked.append(question.url)
        return Answer(200, {"patroni": {"scope": "pg", "name": "x"}})

    monkeypatch.setattr(scram, "proves_password", proves)
    monkeypatch.setattr(security, "ask_briefly", answer)
    password = derivation.derive("a key", "pg", 1).passwords["replication"]
    ip: IP = ip_address("fd00::2")
    assert security.look(ip, "pg", password) == Peer(ip, plain=True, proved=True)
    assert asked == ["http://[fd00::2]:8008/patroni", ("fd00::2", 5432, "replicator", password)]
    assert security.look(ip, "other", None) == Peer(ip, plain=False, proved=False)
    monkeypatch.setattr(security, "ask_briefly", lambda question: Answer(failure="timed out"))
    monkeypatch.setattr(scram, "proves_password", lambda *asked: None)
    assert security.look(ip, "pg", password) == Peer(ip, plain=False, proved=False)
