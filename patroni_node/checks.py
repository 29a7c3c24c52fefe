"""The checks of node.yml that a JSON Schema cannot express."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from patroni_node import derivation, secret, tls, tuning
from patroni_node.dcs import ALONE, NOBODY, Consul, Dcs, Etcd
from patroni_node.document import Document
from patroni_node.errors import Key, Problem
from patroni_node.model import PgBackRest, Settings
from patroni_node.network import IP, AddressChoice, Network
from patroni_node.sources import Source, parse
from patroni_node.tls import TlsSources

# Said here and not by PostgreSQL: Patroni or this program sets them, and a second value would lose without a word.
OWN_PARAMETERS = {
    "listen_addresses": "address",
    "port": "patroni.postgresql.listen",
    "cluster_name": "cluster",
    "data_directory": "patroni.postgresql.data_dir",
    "hba_file": "networks",
    "max_connections": "tuning.max_connections",
    "ssl": "tls",
    "archive_mode": "archive",
    "archive_command": "archive",
    "restore_command": "archive",
}
# RFC 1123, section 2.1, and _, which names of containers have; a last label of digits only would be an address.
HOST_NAME = re.compile(r"(?!(.*\.)?[0-9]+\Z)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")

ELSEWHERE = {
    "server": {"host": "mode: external", "port": "mode: external"},
    "client": {"host": "mode: external", "port": "mode: external", "expect": "mode: server"},
    "external": {"expect": "mode: server", "join": "mode: server or client"},
}


class Checks:
    """One reading of a document; collects problems instead of raising."""

    def __init__(self, document: Document, refused: set[Key], *, new: bool = False) -> None:
        self.document = document
        self.refused = refused
        self.new = new and document.data.get("compatibility") is None
        self.problems: list[Problem] = []

    def settings(self) -> Settings:
        """Return what the document says; worth nothing when there are problems."""
        dcs = self._dcs()
        networks = self._networks()
        if not networks and not (isinstance(dcs, Consul) and dcs.mode == "server") and not self.refused:
            self._refuse(("networks",), "is missing: with this store nothing else says who the other members are")
        tuned = self._value(("tuning",))
        return Settings(
            cluster=self._get(("cluster",), str, ""),
            secrets=self._secrets(dcs),
            name=self._get(("name",), str, None),
            address=self._address(),
            networks=networks,
            dcs=dcs,
            tls=self._own_tls(),
            compatibility=self._get(("compatibility",), int, None),
            tuning=None if tuned is False else self._tuning(),
            watchdog=self._word(("watchdog",), "off", "automatic"),
            restart=self._word(("restart",), "no", "on-failure"),
            tags=self._tags(),
            callbacks=self._get(("callbacks",), dict, {}),
            archive=self._archive(),
            patroni=self._patroni(),
            document=self.document,
        )

    def _refuse(self, key: Key, message: str) -> None:
        self.problems.append(self.document.problem(key, message))

    def _value(self, key: Key) -> Any:
        value: Any = self.document.data
        for part in key:
            if not isinstance(value, dict) or part not in value:
                return None
            value = value[part]
        return value

    def _taken(self, key: Key) -> bool:
        """Whether the schema took what is at key and all that is around it."""
        return not any(key[: len(bad)] == bad for bad in self.refused if bad)

    def _get(self, key: Key, kind: type, default: Any) -> Any:
        """Return the value at key when it is of the kind and the schema took it, else the default."""
        value = self._value(key)
        return value if isinstance(value, kind) and self._taken(key) else default

    def _word(self, key: Key, off: str, default: str) -> str:
        # YAML 1.1 reads off and no as false.
        value = self._value(key)
        return off if value is False else self._get(key, str, default)

    def _secrets(self, dcs: Dcs) -> dict[str, Source]:
        given = self._get(("secrets",), dict, {})
        found = {name: parse(("secrets", name), value) for name, value in given.items()}
        sources = {name: source for name, source in found.items() if source and self._taken(source.key)}
        for name, source in sources.items():
            if source.text is None:
                continue
            weak = secret.weakness(name, source.text) or (secret.too_weak(name, source.text) if self.new else None)
            if weak is not None:
                self._refuse(source.key, weak)
        self._complete(set(given), dcs)
        return sources

    def _complete(self, given: set[str], dcs: Dcs) -> None:
        needed = set(derivation.PASSWORDS)
        if isinstance(dcs, Consul) and dcs.mode == "server":
            needed.add("gossip")
        missing = sorted(needed - given)
        if "key" not in given and missing and isinstance(self._value(("secrets",)), dict):
            message = "is missing: set it to at least 16 random characters, the same on all nodes"
            if given & needed:
                message += f" (or give {', '.join(missing)} as well)"
            self._refuse(("secrets", "key"), message)
        if "etcd" in given and not (isinstance(dcs, Etcd) and dcs.username):
            self._refuse(("secrets", "etcd"), "is the password of dcs.etcd3.username, which is not set")
        if isinstance(dcs, Etcd):
            if dcs.username and "etcd" not in given:
                self._refuse(("secrets", "etcd"), f"is missing: the password of {dcs.username} at etcd")
            for name in sorted({"gossip", "consul_token"} & given):
                self._refuse(("secrets", name), "is of Consul, and dcs names etcd3: remove one of them")
        elif not dcs.local and "gossip" in given:
            self._refuse(("secrets", "gossip"), "is for an agent on this node, and dcs.consul.mode is external")

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
            network = self._network(key, text) if self._item(key, text) else None
            if network is not None:
                found.append(network)
        return tuple(dict.fromkeys(found))

    def _item(self, key: Key, value: Any) -> bool:
        return isinstance(value, str) and key not in self.refused

    def _dcs(self) -> Dcs:
        if isinstance(self._value(("dcs", "etcd3")), dict):
            return self._etcd()
        base: Key = ("dcs", "consul")
        mode = self._get((*base, "mode"), str, "server")
        for name, instead in ELSEWHERE[mode].items():
            if self._value((*base, name)) is not None:
                self._refuse((*base, name), f"is for {instead}, and mode is {mode}")
        join = []
        for index, text in enumerate(self._get((*base, "join"), list, [])):
            ip = self._unicast((*base, "join", index), text) if self._item((*base, "join", index), text) else None
            if ip is not None:
                join.append(ip)
        if mode == "client" and not join and not self.refused:
            self._refuse((*base, "join"), "is missing: set it to the addresses of the Consul servers")
        if mode == "external" and self._value((*base, "host")) is None:
            self._refuse((*base, "host"), "is missing: set it to the address of the agent")
        host = self._get((*base, "host"), str, None)
        if host is not None:
            self._server((*base, "host"), host, bare=True)
        expect = self._get((*base, "expect"), int, None)
        if mode == "server":
            self._expect((*base, "expect"), expect, join)
        return Consul(
            mode=mode,
            join=tuple(join),
            expect=expect,
            datacenter=self._get((*base, "datacenter"), str, "dc1"),
            host=host or "127.0.0.1",
            port=self._get((*base, "port"), int, 8500),
            tls=self._tls((*base, "tls"), pair=mode != "external"),
            register_service=self._get((*base, "register_service"), bool, True),
        )

    def _expect(self, key: Key, expect: int | None, join: list[IP]) -> None:
        if expect is not None and expect > 1 and not join and not self.refused:
            self._refuse(key, NOBODY.format(expect))
        if expect == 1 and len(set(join)) > 1:
            self._refuse(key, ALONE)

    def _etcd(self) -> Etcd:
        base: Key = ("dcs", "etcd3")
        hosts = []
        for index, text in enumerate(self._get((*base, "hosts"), list, [])):
            key = (*base, "hosts", index)
            if self._item(key, text):
                host, _, port = text.rpartition(":")
                if not 0 < int(port) < 65536:
                    self._refuse(key, "has no port between 1 and 65535 after its colon")
                self._server(key, host, bare=False)
                hosts.append(text)
        return Etcd(tuple(hosts), self._get((*base, "username"), str, None), self._tls((*base, "tls"), pair=False))

    def _own_tls(self) -> TlsSources | Literal["auto", "off"] | None:
        word = self._word(("tls",), "off", "")
        if word in ("auto", "off") and self._value(("compatibility",)) is not None:
            self._refuse(
                ("compatibility",), "is for a cluster from before `tls: auto` and `tls: off`: keep one of the two"
            )
        if word == "auto":
            if "key" not in self._get(("secrets",), dict, {}):
                self._refuse(("secrets", "key"), "is missing: `tls: auto` takes the cluster's authority from it")
            return "auto"
        return "off" if word == "off" else self._tls(("tls",), pair=True)

    def _tls(self, key: Key, *, pair: bool) -> TlsSources | None:
        """Return what a tls: names; pair: whether a CA alone is not enough there."""
        found = tls.sources(key, self._get(key, dict, None))
        if found and pair and found.certificate is None and self._taken(key):
            self._refuse((*key, "certificate"), "is missing: set it to this node's certificate, and `key` to its key")
        return found

    def _tuning(self) -> tuning.Wishes:
        base: Key = ("tuning",)
        defaults = tuning.Wishes()
        memory = self._get((*base, "memory"), str, None)
        parameters: Mapping[str, Any] = self._get((*base, "parameters"), dict, {})
        for name, value in parameters.items():
            if name in OWN_PARAMETERS:
                self._refuse((*base, "parameters", name), f"cannot be set here: set `{OWN_PARAMETERS[name]}:`")
            least = tuning.LEAST.get(name)
            if least is not None and not (type(value) is int and least <= value <= tuning.MOST):
                message = f"must be a whole number from {least} to {tuning.MOST}, or Patroni takes its own default"
                self._refuse((*base, "parameters", name), message)
        return tuning.Wishes(
            workload=self._get((*base, "workload"), str, defaults.workload),
            storage=self._get((*base, "storage"), str, defaults.storage),
            max_connections=self._get((*base, "max_connections"), int, None),
            memory=None if memory is None else tuning.parse_size(memory),
            cpus=self._get((*base, "cpus"), int, None),
            parameters=parameters,
        )

    def _archive(self) -> PgBackRest | None:
        value = self._value(("archive",))
        if value is True:
            self._refuse(("archive",), "names no program: write `archive: {pgbackrest: {}}`, or leave it out")
        base: Key = ("archive", "pgbackrest")
        if not isinstance(self._value(base), dict):
            return None
        defaults = PgBackRest()
        return PgBackRest(
            repository=self._get((*base, "repository"), str, defaults.repository),
            stanza=self._get((*base, "stanza"), str, self._get(("cluster",), str, "")),
            retention=self._get((*base, "retention"), int, defaults.retention),
            create_replica=self._get((*base, "create_replica"), bool, defaults.create_replica),
            options=self._get((*base, "options"), dict, {}),
        )

    def _tags(self) -> dict[str, Any]:
        tags: dict[str, Any] = self._get(("tags",), dict, {})
        for switch, priority in (("nofailover", "failover_priority"), ("nosync", "sync_priority")):
            if switch in tags and priority in tags:
                self._refuse(("tags", priority), f"and {switch} contradict each other for Patroni: keep one of them")
        return tags

    def _patroni(self) -> dict[str, Any]:
        extra: dict[str, Any] = self._get(("patroni",), dict, {})
        for name, instead in (("name", "name"), ("scope", "cluster")):
            if name in extra:
                self._refuse(("patroni", name), f"cannot be set here: set `{instead}:` at the top level")
        for key, value in _passwords(extra, ("patroni",)):
            if secret.is_well_known(value):
                self._refuse(key, "is a well-known password: leave it out, secrets.key derives a good one")
        return extra

    def _server(self, key: Key, host: str, *, bare: bool) -> None:
        """Refuse what is no host; bare: whether an IPv6 address may do without brackets."""
        inside = re.fullmatch(r"\[(.*)\]", host)
        if inside or (bare and ":" in host):
            good = _ip(inside[1] if inside else host, ipaddress.IPv6Address) is not None
        else:
            good = _ip(host, ipaddress.IPv4Address) is not None or HOST_NAME.fullmatch(host) is not None
        if not good:
            self._refuse(key, f"{host} is no host name, no IPv4 address, and no IPv6 address in brackets")

    def _unicast(self, key: Key, text: str) -> IP | None:
        ip = _ip(text)
        if ip is None:
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
            network = None
        if network is None or "%" in text:
            self._refuse(key, f"{text} is not a network like 10.129.0.0/24")
            return None
        if "/" in text and ipaddress.ip_interface(text).ip != network.network_address:
            self._refuse(key, f"{text} is an address, not a network: did you mean {network}?")
        elif network.is_multicast:
            self._refuse(key, f"{text} is a multicast network, which no node is in")
        return network


def _ip(text: str, kind: Callable[[str], IP] = ipaddress.ip_address) -> IP | None:
    """Return the address that text is; None for anything else, and for one with a zone (fe80::1%eth0, RFC 4007)."""
    try:
        # A zone is a card of this machine, and Python takes any text for one.
        return None if "%" in text else kind(text)
    except ValueError:
        return None


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
