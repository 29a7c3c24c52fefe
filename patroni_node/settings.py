"""What node.yml says, checked and typed: document in, frozen settings out."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patroni_node import schema, secret
from patroni_node.document import Document, merge_documents, read
from patroni_node.errors import Key, NodeError, Problem
from patroni_node.network import IP, AddressChoice, Network
from patroni_node.paths import Paths

ALONE = "is 1 but join names other servers: each node would become a cluster of its own"
NOBODY = "is {} but join names no other server: list their addresses in join"

EXAMPLE = "/usr/share/patroni-node/node.example.yml"


@dataclass(frozen=True)
class ConsulSettings:
    """The agent on this node, a server; its peers are known once this node's own address is."""

    join: tuple[IP, ...] = ()
    expect: int | None = None
    datacenter: str = "dc1"

    def peers(self, own: IP) -> tuple[IP, ...]:
        """Return the other servers: one list can serve all nodes, so it may name this one."""
        return tuple(ip for ip in dict.fromkeys(self.join) if ip != own)

    def servers(self, own: IP) -> int:
        """Return how many servers wait for each other before the first election.

        Raises:
            NodeError: when `expect` contradicts the peers, now that this node's address is known.
        """
        peers = self.peers(own)
        if self.expect is None:
            return len(peers) + 1
        if (self.expect == 1) != (not peers):
            message = ALONE if peers else NOBODY.format(self.expect)
            raise NodeError(Problem(message, key=("dcs", "consul", "expect")))
        return self.expect


@dataclass(frozen=True)
class Settings:
    """A node.yml that passed every check; its repr shows no secret."""

    cluster: str
    key: str = field(repr=False)
    name: str | None = None
    address: AddressChoice = field(default_factory=AddressChoice)
    networks: tuple[Network, ...] = ()
    consul: ConsulSettings = field(default_factory=ConsulSettings)
    patroni: dict[str, Any] = field(default_factory=dict, repr=False)


def load(paths: Paths) -> Settings:
    """Read node.yml and its drop-ins.

    Returns:
        The checked settings.

    Raises:
        NodeError: with every problem of every file at once.
    """
    return build(read_document(paths))


def read_document(paths: Paths) -> Document:
    """Return node.yml with node.d/*.yml merged after it in the order of their names.

    Raises:
        NodeError: when there is no file at all, or with the problems of each unreadable one.
    """
    document = Document()
    problems: list[Problem] = []
    drop_ins = sorted(paths.drop_ins.glob("*.yml"))
    for path in [paths.node_file, *drop_ins]:
        try:
            found = read(path)
            # The first file is taken as it is: a key left empty there is a mistake, not a removal.
            document = merge_documents(document, found) if document.marks else found
        except FileNotFoundError:
            if not drop_ins:
                message = f"is missing: write `cluster:` and `secrets: {{key: ...}}` to it (example: {EXAMPLE})"
                problems.append(Problem(message, str(path)))
        except NodeError as error:
            problems.extend(error.problems)
    if problems:
        raise NodeError(problems)
    return document


def read_one(path: Path) -> Document:
    """Return one file on its own, as `patroni-node check FILE` looks at it.

    Raises:
        NodeError: when it is absent or unreadable.
    """
    try:
        return read(path)
    except FileNotFoundError:
        raise NodeError(Problem("does not exist", str(path))) from None


def build(document: Document) -> Settings:
    """Check a document against the schema and against itself.

    Raises:
        NodeError: with every problem; a key that the schema refuses is not examined further.
    """
    problems = schema.problems(document)
    checks = _Checks(document, {problem.key for problem in problems})
    settings = checks.settings()
    problems += checks.problems
    if problems:
        problems.sort(key=lambda problem: (problem.file or "", problem.line or 0))
        raise NodeError(problems)
    return settings


class _Checks:
    """The checks that a JSON Schema cannot express; collects problems instead of raising."""

    def __init__(self, document: Document, refused: set[Key]) -> None:
        self.document = document
        self.refused = refused
        self.problems: list[Problem] = []

    def settings(self) -> Settings:
        return Settings(
            cluster=self._get(("cluster",), str, ""),
            key=self._key(),
            name=self._get(("name",), str, None),
            address=self._address(),
            networks=self._networks(),
            consul=self._consul(),
            patroni=self._patroni(),
        )

    def _refuse(self, key: Key, message: str) -> None:
        self.problems.append(self.document.problem(key, message))

    def _get(self, key: Key, kind: type, default: Any) -> Any:
        """Return the value at key when it is of the kind and the schema took it, else the default."""
        value: Any = self.document.data
        for part in key:
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        if not isinstance(value, kind) or any(key[: len(bad)] == bad for bad in self.refused if bad):
            return default
        return value

    def _key(self) -> str:
        key: str = self._get(("secrets", "key"), str, "")
        weak = secret.weakness(key) if key else None
        if weak is not None:
            self._refuse(("secrets", "key"), weak)
        return key

    def _address(self) -> AddressChoice:
        literal = self._get(("address",), str, None)
        if literal is not None:
            return AddressChoice(literal=self._unicast(("address",), literal))
        cidr = self._get(("address", "cidr"), str, None)
        if cidr is not None:
            return AddressChoice(cidr=self._network(("address", "cidr"), cidr))
        return AddressChoice(interface=self._get(("address", "interface"), str, None))

    def _networks(self) -> tuple[Network, ...]:
        found = []
        for index, text in enumerate(self._get(("networks",), list, [])):
            key = ("networks", index)
            network = self._network(key, text) if self._get_item(key, text) else None
            if network is not None:
                found.append(network)
        return tuple(dict.fromkeys(found))

    def _get_item(self, key: Key, value: Any) -> bool:
        return isinstance(value, str) and key not in self.refused

    def _consul(self) -> ConsulSettings:
        base: Key = ("dcs", "consul")
        join_key: Key = (*base, "join")
        join = []
        for index, text in enumerate(self._get(join_key, list, [])):
            key = (*join_key, index)
            ip = self._unicast(key, text) if self._get_item(key, text) else None
            if ip is not None:
                join.append(ip)
        expect = self._get((*base, "expect"), int, None)
        if expect is not None and expect > 1 and not join and not self.refused:
            self._refuse((*base, "expect"), NOBODY.format(expect))
        if expect == 1 and len(set(join)) > 1:
            self._refuse((*base, "expect"), ALONE)
        return ConsulSettings(tuple(join), expect, self._get((*base, "datacenter"), str, "dc1"))

    def _patroni(self) -> dict[str, Any]:
        extra: dict[str, Any] = self._get(("patroni",), dict, {})
        for name, instead in (("name", "name"), ("scope", "cluster")):
            if name in extra:
                self._refuse(("patroni", name), f"cannot be set here: set `{instead}:` at the top level")
        for key, value in _passwords(extra, ("patroni",)):
            if secret.is_well_known(value):
                self._refuse(key, "is a well-known password: leave it out, secrets.key derives a good one")
        return extra

    def _unicast(self, key: Key, text: str) -> IP | None:
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            self._refuse(key, f"{text} is not an IPv4 or IPv6 address")
            return None
        # is_reserved is left alone: it holds 240.0.0.0/4, which some private clouds do use.
        bad = ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip.is_loopback
        if bad or text == "255.255.255.255":
            self._refuse(key, f"{text} cannot be a node's address: other machines cannot reach a node by it")
            return None
        return ip

    def _network(self, key: Key, text: str) -> Network | None:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            self._refuse(key, f"{text} is not a network like 10.129.0.0/24")
            return None
        if "/" in text and ipaddress.ip_interface(text).ip != network.network_address:
            self._refuse(key, f"{text} is an address, not a network: did you mean {network}?")
        elif network.is_multicast:
            self._refuse(key, f"{text} is a multicast network, which no node is in")
        return network


def _passwords(value: Any, key: Key) -> list[tuple[Key, str]]:
    """Return every `password:` below value with its key path."""
    found: list[tuple[Key, str]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if name == "password" and isinstance(item, (str, int)):
            found.append(((*key, name), str(item)))
        else:
            found += _passwords(item, (*key, name))
    return found
