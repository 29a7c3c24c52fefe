"""Properties of a node's files, whatever its node.yml says; tests/pipeline asks Patroni about the same documents."""

from __future__ import annotations

import itertools
import json
from ipaddress import ip_address
from typing import Any

import pytest
import yaml
from hypothesis import event, given

from patroni_node import derivation, document, render, schema, secret
from patroni_node.configure import configure
from patroni_node.document import merge
from patroni_node.errors import NodeError
from patroni_node.hardware import MIB, Hardware
from patroni_node.model import Node as Whole
from patroni_node.settings import load
from tests.unit.node import documents
from tests.unit.node.conftest import KEY, Node
from tests.unit.node.documents import often

FIRST_RULES = [
    "local replication replicator scram-sha-256",
    "local postgres rewind scram-sha-256",
    "local all all peer",
    "local replication postgres peer",
    "host all all 127.0.0.1/32 scram-sha-256",
    "host all all ::1/128 scram-sha-256",
]
USERS = ("superuser", "replication", "rewind")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    node = documents.furnish(Node(tmp_path_factory.mktemp("node")))
    made(node, {"cluster": "before", "secrets": {"key": KEY}})
    return node


def made(node: Node, data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What patroni.yml and Consul's file hold."""
    # Else the name of the last example would be kept: it is the same instance.
    node.paths.identity.unlink(missing_ok=True)
    node.paths.security.unlink(missing_ok=True)
    node.write(documents.written(data))
    configure(node.paths, node.machine)
    consul = node.paths.consul_json
    patroni = yaml.safe_load(node.paths.patroni_yml.read_text(encoding="utf-8"))
    return patroni, json.loads(consul.read_text(encoding="utf-8")) if consul.exists() else None


def files(node: Node) -> dict[str, bytes]:
    """All that patroni-node may have written, but for what says that it did and what went wrong."""
    folders = (node.paths.root / name for name in ("etc/patroni", "etc/consul.d", "etc/systemd", "etc/pgbackrest"))
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in found if path != node.paths.node_file}


def without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in names}


def protected(data: dict[str, Any]) -> bool:
    return "compatibility" not in data


def speaks_tls(data: dict[str, Any]) -> bool:
    return isinstance(data.get("tls"), dict) or (protected(data) and data.get("tls", "auto") == "auto")


def expected_secrets(data: dict[str, Any]) -> dict[str, str]:
    """By purpose: given as text or as one of the furnished files, or derived."""
    given = {name: value if isinstance(value, str) else stored(name) for name, value in data["secrets"].items()}
    found: dict[str, str] = {}
    if "key" in given:
        derived = derivation.derive(given["key"], data["cluster"], 2 if protected(data) else 1)
        found = {**derived.passwords, "gossip": derived.gossip}
        if derived.agent and serves(data):
            found |= {"consul_token": derived.agent, "management": str(derived.management)}
    if "consul_token" in given:
        found.pop("management", None)
    return {**found, **without(given, "key")}


def serves(data: dict[str, Any]) -> bool:
    store = data.get("dcs", {})
    return "etcd3" not in store and store.get("consul", {}).get("mode", "server") == "server"


def stored(name: str) -> str:
    return documents.GOSSIP_KEY if name == "gossip" else KEY


def texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for below in value.values() for text in texts(below)}
    return {text for below in value for text in texts(below)} if isinstance(value, list) else {str(value)}


@given(documents.good())
@often(0.4)
def test_everything_that_was_given_arrives_as_it_was_given(node: Node, data: dict[str, Any]) -> None:
    data = without(data, "patroni")
    patroni, _ = made(node, data)
    assert patroni["scope"] == data["cluster"]
    assert patroni["name"] == data.get("name", "pg-srv1")
    assert patroni.get("tags", {}) == data.get("tags", {})
    assert patroni["postgresql"].get("callbacks", {}) == data.get("callbacks", {})
    assert patroni["watchdog"]["mode"] == (data.get("watchdog", "automatic") or "off")
    tuned = data.get("tuning") or {}
    parameters = patroni["bootstrap"]["dcs"]["postgresql"]["parameters"] | patroni["postgresql"]["parameters"]
    assert tuned.get("parameters", {}).items() <= parameters.items()
    assert parameters["archive_mode"] == ("on" if data.get("archive") else "off")
    store = data.get("dcs", {})
    if "etcd3" in store:
        assert patroni["etcd3"]["hosts"] == store["etcd3"]["hosts"]
        assert patroni["etcd3"].get("username") == store["etcd3"].get("username")
    else:
        assert patroni["consul"]["register_service"] == store.get("consul", {}).get("register_service", True)
    assert ("etcd3" in patroni) != ("consul" in patroni)


@given(documents.good())
@often(0.4)
def test_secrets_are_where_they_belong_and_nowhere_else(node: Node, data: dict[str, Any]) -> None:
    data = without(data, "patroni", "tags", "callbacks", "tuning", "archive")
    patroni, consul = made(node, data)
    wanted = expected_secrets(data)
    found = {user: patroni["postgresql"]["authentication"][user].pop("password") for user in USERS}
    found["restapi"] = patroni["restapi"]["authentication"].pop("password")
    for purpose, place, name in (
        ("consul_token", patroni.get("consul", {}), "token"),
        ("etcd", patroni.get("etcd3", {}), "password"),
        ("gossip", consul or {}, "encrypt"),
    ):
        if name in place:
            found[purpose] = place.pop(name)
    if consul and "consul_token" in wanted:
        tokens = consul["acl"].pop("tokens")
        management = wanted.pop("management", wanted["consul_token"])
        assert tokens.pop("agent") == wanted["consul_token"]
        assert tokens == ({"master": management} if consul["server"] else {})
        hidden_token = node.paths.consul_token
        assert hidden_token.exists() == (consul["server"] and protected(data))
        assert not hidden_token.exists() or hidden_token.read_text().strip() == management
    if "gossip" not in found:
        # Agents of others have a key that nothing here derives, and there may be no agent here.
        wanted.pop("gossip", None)
        assert not (consul or {}).get("server")
    elif "gossip" not in data["secrets"]:
        assert consul and consul["server"]
    assert found == wanted
    hidden = {*wanted.values(), *texts(without(data["secrets"], *wanted)), KEY} & (texts(patroni) | texts(consul or {}))
    assert not hidden
    keys = (node.paths.tls / "node.key", node.paths.consul_key, node.paths.consul_token)
    for path in (node.paths.patroni_yml, node.paths.consul_json, *keys):
        assert not path.exists() or path.stat().st_mode & 0o007 == 0, path


@given(documents.good())
@often(0.4)
def test_nobody_comes_in_without_proof(node: Node, data: dict[str, Any]) -> None:
    data = without(data, "patroni")
    rules = made(node, data)[0]["postgresql"]["pg_hba"]
    assert rules[: len(FIRST_RULES)] == FIRST_RULES
    fields = [rule.split(" ") for rule in rules[len(FIRST_RULES) :]]
    assert fields, "the other members must be let in"
    assert all(len(rule) == 5 and rule[-1] == "scram-sha-256" for rule in fields)
    assert {rule[0] for rule in fields} == {"hostssl" if speaks_tls(data) else "host"}
    assert {rule[3] for rule in fields} >= set(data.get("networks", ()))


@given(documents.good())
@often(0.2)
def test_patroni_of_node_yml_is_merged_last(node: Node, data: dict[str, Any]) -> None:
    plain, consul = made(node, without(data, "patroni"))
    assert made(node, data) == (merge(plain, data.get("patroni", {})), consul)


@given(documents.good())
@often(0.2)
def test_the_same_file_changes_nothing(node: Node, data: dict[str, Any]) -> None:
    made(node, data)
    assert configure(node.paths, node.machine).changed == []


@given(documents.changed())
@often(1)
def test_any_file_is_taken_whole_or_refused_in_words(node: Node, data: dict[str, Any]) -> None:
    """What the schema refuses renders nothing; nothing fails in another way; no sentence gives a secret away."""
    before = files(node)
    text = documents.written(data)
    node.write(text)
    refused_by_schema = bool(schema.problems(document.parse(text, "node.yml")))
    try:
        configure(node.paths, node.machine)
    except NodeError as error:
        said = str(error)
    else:
        said = ""
    event("refused by the schema" if refused_by_schema else "refused" if said else "taken")
    if not said:
        assert not refused_by_schema
        assert node.paths.ready.exists()
        assert yaml.safe_load(node.paths.patroni_yml.read_text(encoding="utf-8"))["scope"] == data["cluster"]
        return
    assert files(node) == before
    assert not node.paths.ready.exists()
    assert all(line.isprintable() for line in said.split("\n"))
    secrets = texts(data["secrets"]) if isinstance(data.get("secrets"), dict) else set()
    assert not [text for text in secrets if len(text) > 11 and not text.startswith("/") and text in said]


ODD = "é😀'\"\\{}: #%\u2028\x85\t"


def test_odd_secrets_are_read_as_they_are(node: Node) -> None:
    made(node, {"cluster": "a", "secrets": {"key": KEY}})
    secrets = secret.Secrets(*(f"{ODD}{n}" for n in range(8)))
    one = Whole(load(node.paths), ODD, ip_address(documents.OWN4), secrets, Hardware(4096 * MIB, 2))
    patroni = yaml.safe_load(render.render(one).patroni_yml)
    assert patroni["name"] == ODD
    found = [patroni["postgresql"]["authentication"][user]["password"] for user in USERS]
    assert [*found, patroni["restapi"]["authentication"]["password"]] == [f"{ODD}{n}" for n in range(4)]


def test_strategies_reach_everything_that_the_schema_knows() -> None:
    """Else a new key of node.yml would go by all of these properties."""
    seen: set[str] = set()

    @often(4)
    @given(documents.good())
    def look(data: dict[str, Any]) -> None:
        seen.update(named(data))

    look()
    assert set(known(documents.SCHEMA)) - seen == set()


def named(value: Any, path: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else ()
    return list(itertools.chain.from_iterable([f"{path}{n}", *named(below, f"{path}{n}.")] for n, below in items))


def known(part: dict[str, Any], path: str = "") -> list[str]:
    for one in part.get("allOf", ()):
        part = {**part, **one}
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        # Where a text can come from is the same everywhere, and drawn everywhere.
        part = {} if name in ("source", "pem") else documents.SCHEMA["definitions"][name]
    items = part.get("properties", {}).items()
    return list(itertools.chain.from_iterable([f"{path}{n}", *known(below, f"{path}{n}.")] for n, below in items))
