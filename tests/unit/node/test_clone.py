"""Copies of a machine, and two machines of one name (trap 20)."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from conftest import DATA, MINIMAL, Node

from patroni_node import neighbours
from patroni_node.configure import configure
from patroni_node.errors import NodeError
from patroni_node.tls import Tls

JOIN = "dcs: {consul: {join: [10.129.0.21, 10.129.0.22, 10.129.0.23]}}\n"


def state(node: Node) -> None:
    (node.paths.consul_data / "raft").mkdir(parents=True)
    (node.paths.consul_data / "node-id").write_text("11111111")
    (node.paths.consul_data / "raft/raft.db").write_text("peers")


def test_a_clone_forgets_consuls_identity_and_loses_nothing(node: Node) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    state(node)
    node.instance("iid-2")
    node.host_name = "pg-srv9"
    assert configure(node.paths, node.machine).name == "pg-srv9"
    assert list(node.paths.consul_data.iterdir()) == []
    assert (node.paths.set_aside / "raft/raft.db").read_text() == "peers"
    assert (node.paths.set_aside / "node-id").read_text() == "11111111"
    # Consul's tokens and keys are in there.
    assert node.paths.set_aside.stat().st_mode & 0o777 == 0o700
    assert json.loads(node.paths.identity.read_text()) == {"instance_id": "iid-2", "name": "pg-srv9"}


def test_the_same_instance_keeps_consuls_state_at_every_boot(node: Node) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    state(node)
    configure(node.paths, node.machine)
    assert (node.paths.consul_data / "node-id").exists()
    assert not node.paths.set_aside.exists()


def test_a_machine_that_never_was_a_node_keeps_what_is_there(node: Node) -> None:
    state(node)
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    assert (node.paths.consul_data / "node-id").exists()


def test_a_refused_clone_keeps_its_state_for_the_next_try(node: Node) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    state(node)
    node.instance("iid-2")
    node.write("cluster: a\n")
    with pytest.raises(NodeError):
        configure(node.paths, node.machine)
    assert (node.paths.consul_data / "node-id").exists()
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    assert not (node.paths.consul_data / "node-id").exists()


def members(*rows: tuple[str, str]) -> dict[str, Any]:
    listed = [{"name": n, "host": h, "api_url": f"https://{h}:8008/patroni"} for n, h in rows]
    return {"scope": "pg-15-cluster", "members": listed}


def running(name: str, scope: str = "pg-15-cluster") -> dict[str, Any]:
    return {"state": "running", "patroni": {"name": name, "scope": scope}}


def test_the_name_of_a_node_that_runs_elsewhere_is_refused(node: Node) -> None:
    node.answers = {
        "https://10.129.0.22:8008/cluster": members(("pg-srv1", "10.129.0.23"), ("pg-srv2", "10.129.0.22")),
        "https://10.129.0.23:8008/patroni": running("pg-srv1"),
    }
    node.write(MINIMAL + JOIN)
    with pytest.raises(NodeError, match=r"name: pg-srv1 is the name of a node that runs at 10\.129\.0\.23:8008"):
        configure(node.paths, node.machine)
    assert not node.paths.patroni_yml.exists()


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"https://10.129.0.22:8008/cluster": members(("pg-srv1", "10.129.0.21"))},
        {"https://10.129.0.22:8008/cluster": members(("pg-srv1", "10.129.0.99"))},
        {
            "https://10.129.0.22:8008/cluster": members(("pg-srv1", "10.129.0.99")),
            "https://10.129.0.99:8008/patroni": running("pg-srv4"),
        },
        {
            "https://10.129.0.22:8008/cluster": members(("pg-srv1", "10.129.0.99")),
            "https://10.129.0.99:8008/patroni": running("pg-srv1", "another-cluster"),
        },
        {"https://10.129.0.22:8008/cluster": ["nonsense"], "https://10.129.0.23:8008/cluster": {"members": 7}},
        {"https://10.129.0.22:8008/cluster": {"members": [{"name": "pg-srv1", "host": "x", "api_url": "file:///etc"}]}},
    ],
    ids=[
        "nobody answers",
        "itself",
        "its old address",
        "old address of another now",
        "another cluster",
        "junk",
        "no url",
    ],
)
def test_what_is_no_conflict(node: Node, answers: dict[str, Any]) -> None:
    node.answers = answers
    node.write(MINIMAL + JOIN)
    assert configure(node.paths, node.machine).name == "pg-srv1"


def test_only_what_may_be_this_node_elsewhere_is_asked_in_turn() -> None:
    asked: list[str] = []
    rows = [("pg-srv1", "10.129.0.21"), ("pg-srv2", "10.129.0.23"), ("pg-srv1", "10.129.0.99")]
    answers = {
        "http://10.129.0.22:8008/cluster": {**members(*rows), "members": [*members(*rows)["members"], "pg-srv1", None]},
        "http://10.129.0.23:8008/cluster": {**members(("pg-srv1", "10.129.0.98")), "scope": "another-cluster"},
    }

    def ask(url: str, ca: str | None) -> Any:
        asked.append(url)
        return answers.get(url)

    peers = [ip_address("10.129.0.22"), ip_address("10.129.0.23")]
    neighbours.require_unique("pg-15-cluster", "pg-srv1", ip_address("10.129.0.21"), peers, None, ask)
    assert sorted(asked) == [*sorted(answers), "https://10.129.0.99:8008/patroni"]


def test_with_tls_the_neighbours_are_asked_by_https() -> None:
    asked: list[tuple[str, str | None]] = []

    def ask(url: str, ca: str | None) -> Any:
        asked.append((url, ca))

    ca = (DATA / "ca.pem").read_text()
    neighbours.require_unique("a", "b", ip_address("10.0.0.1"), [ip_address("fd00::2")], Tls(ca), ask)
    assert asked == [("https://[fd00::2]:8008/cluster", ca)]


def test_alone_nobody_is_asked() -> None:
    def ask(url: str, ca: str | None) -> Any:
        raise AssertionError(url)

    neighbours.require_unique("a", "b", ip_address("10.0.0.1"), [], None, ask)
