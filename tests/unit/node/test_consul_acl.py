"""Consul's rules, against a Consul that is a table: what is made, what stays, and who else is at it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import MINIMAL, Node

from patroni_node import consul_acl
from patroni_node.configure import configure
from patroni_node.consul_acl import ANONYMOUS, MEMBERS, NAMES
from patroni_node.errors import NodeError, UnavailableError

MANAGEMENT, TOKEN = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-000000000000"
TEXTS = consul_acl.rules("pg-15-cluster")


class Consul:
    """Policies and tokens, as its HTTP API has them."""

    def __init__(self) -> None:
        self.policies: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {ANONYMOUS: {"AccessorID": ANONYMOUS, "Policies": None}}
        self.fails: list[tuple[int, Any]] = []
        self.puts: list[str] = []

    def __call__(self, method: str, path: str, token: str, value: Any) -> tuple[int, Any]:
        if self.fails:
            return self.fails.pop(0)
        if path == "token/self":
            known = any(t.get("SecretID") == token for t in self.tokens.values()) or token == MANAGEMENT
            return (200, {}) if known else (403, "ACL not found")
        assert token == MANAGEMENT
        if method == "PUT":
            self.puts.append(path)
            return self._put(path, value)
        kind, _, name = path.partition("/")
        if kind == "policies":
            return 200, [{"ID": i, "Name": p["Name"]} for i, p in self.policies.items()]
        return 200, (self.policies if kind == "policy" else self.tokens)[name]

    def _put(self, path: str, value: Any) -> tuple[int, Any]:
        kind, _, name = path.partition("/")
        if kind == "policy":
            if not name and any(p["Name"] == value["Name"] for p in self.policies.values()):
                return 500, f"Invalid Policy: A Policy with Name {value['Name']!r} already exists"
            self.policies[name or f"id-{len(self.policies)}"] = value
        else:
            self.tokens[name or "new"] = value
        return 200, value

    @property
    def rules(self) -> dict[str, str]:
        return {policy["Name"]: policy["Rules"] for policy in self.policies.values()}


def apply(consul: Consul, wait: float = 0, **more: Any) -> bool:
    return consul_acl.apply("pg-15-cluster", MANAGEMENT, TOKEN, wait, consul, lambda seconds: None, **more)


def test_all_is_made_once() -> None:
    consul = Consul()
    assert apply(consul) is True
    assert consul.rules == TEXTS
    assert consul.tokens["new"]["SecretID"] == TOKEN
    assert consul.tokens["new"]["Policies"] == [{"Name": MEMBERS}]
    assert consul.tokens[ANONYMOUS]["Policies"] == [{"Name": NAMES}]
    consul.puts.clear()
    assert apply(consul) is False
    assert consul.puts == []


def test_who_has_no_token_learns_names_only() -> None:
    assert "key" not in TEXTS[NAMES] and "write" not in TEXTS[NAMES]
    assert "acl" not in TEXTS[MEMBERS] and "operator" not in TEXTS[MEMBERS]
    assert 'key_prefix "service/pg-15-cluster/"' in TEXTS[MEMBERS], "not of a cluster whose name begins alike"


def test_what_others_gave_everybody_stays() -> None:
    consul = Consul()
    consul.tokens[ANONYMOUS]["Policies"] = [{"ID": "x", "Name": "metrics"}]
    apply(consul)
    assert [p["Name"] for p in consul.tokens[ANONYMOUS]["Policies"]] == ["metrics", NAMES]


def test_rules_of_an_older_version_are_replaced() -> None:
    consul = Consul()
    apply(consul)
    one = next(i for i, p in consul.policies.items() if p["Name"] == MEMBERS)
    consul.policies[one]["Rules"] = 'key_prefix "" { policy = "write" }'
    assert apply(consul) is True
    assert consul.rules == TEXTS


def test_a_token_that_may_do_all_is_not_made_again() -> None:
    consul = Consul()
    consul_acl.apply("pg-15-cluster", MANAGEMENT, MANAGEMENT, 0, consul, lambda seconds: None)
    assert list(consul.tokens) == [ANONYMOUS]


@pytest.mark.parametrize(
    "failure",
    [
        (0, None),
        (500, "The ACL system is currently in legacy mode."),
        (500, "No cluster leader"),
        (403, "ACL not found"),
        (500, "Invalid Policy: A Policy with Name 'patroni-node' already exists"),
    ],
)
def test_it_waits_for_consul_and_for_others_who_do_the_same(failure: tuple[int, Any]) -> None:
    consul = Consul()
    consul.fails = [failure] * 3
    assert apply(consul, wait=60) is True
    assert consul.rules == TEXTS
    consul.fails = [failure] * 9
    with pytest.raises(UnavailableError, match="Consul's rules could not be written within 0 s; it said: "):
        apply(consul)


def test_the_command_takes_what_was_rendered(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(consul_acl, "apply", lambda *words: asked.append(words) or True)
    with pytest.raises(NodeError, match="names no tokens"):
        consul_acl.run(node.paths, 5)
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    assert consul_acl.run(node.paths, 5) == "wrote Consul's rules"
    tokens = json.loads(node.paths.consul_json.read_text())["acl"]["tokens"]
    assert asked == [("pg-15-cluster", tokens["master"], tokens["agent"], 5)]
