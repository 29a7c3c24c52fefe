"""What patroni.yml says now: where this node's Patroni and its store are asked, and as whom.

Sources: Patroni's manual, "YAML Configuration Settings", consul, etcdv3, restapi; patroni/dcs/consul.py and etcd.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from patroni_node import patroni_yml
from patroni_node.errors import NodeError
from patroni_node.patroni_yml import at, mapping
from patroni_node.rest import Question, Trust

REST_PORT = 8008
ETCD = ("etcd3", "etcd")
OTHERS = ("zookeeper", "exhibitor", "kubernetes", "raft")


@dataclass(frozen=True)
class Endpoint:
    """A server's URL without a path, how it is trusted, and the headers that it is sent."""

    url: str
    trust: Trust | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def question(self, path: str) -> Question:
        """Return a question for a path of this server."""
        return Question(self.url + path, self.trust, self.headers)


@dataclass(frozen=True)
class Store:
    """Which store; servers: none where this program does not know how to ask it."""

    kind: str
    servers: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Effective:
    """What Patroni was told, or will be at its next start."""

    cluster: str
    name: str
    address: str
    patroni: Endpoint
    store: Store | None
    data_dir: str = ""


def read(path: Path) -> Effective | None:
    """Return what patroni.yml says; None where there is none that can be read."""
    try:
        data = patroni_yml.read(path).document.data
    except NodeError:
        return None
    host = str(at(data, ("restapi", "connect_address")) or f"127.0.0.1:{REST_PORT}")
    address = host.rpartition(":")[0].strip("[]")
    cluster, name, data_dir = (_text(data, *key) for key in (("scope",), ("name",), ("postgresql", "data_dir")))
    return Effective(cluster, name, address, _patroni(data, host), _store(data), data_dir)


def passwords(path: Path) -> dict[str, str]:
    """Return the names and passwords of PostgreSQL's roles that patroni.yml has. Raises NodeError."""
    users = mapping(patroni_yml.read(path).document.data, ("postgresql", "authentication"))
    return {str(user["username"]): str(user["password"]) for user in users.values() if isinstance(user, Mapping)}


def _text(data: Any, *key: str) -> str:
    value = at(data, key)
    return "" if value is None else str(value)


def _path(section: Mapping[str, Any], name: str) -> str | None:
    value = section.get(name)
    return value if isinstance(value, str) and value else None


def _patroni(data: Any, host: str) -> Endpoint:
    api, ctl = mapping(data, ("restapi",)), mapping(data, ("ctl",))
    if not _path(api, "certfile"):
        return Endpoint(f"http://{host}")
    ca = _path(ctl, "cacert") or _path(api, "cafile")
    trust = Trust(
        ca_file=ca,
        certificate=_path(ctl, "certfile"),
        key=_path(ctl, "keyfile"),
        verify=ctl.get("insecure") is not True,
    )
    return Endpoint(f"https://{host}", trust)


def _store(data: Any) -> Store | None:
    if "consul" in data:
        return Store("Consul", _consul(mapping(data, ("consul",))))
    for kind in ETCD:
        if kind in data:
            return Store("etcd", _etcd(mapping(data, (kind,))))
    return next((Store(kind) for kind in OTHERS if kind in data), None)


def _trust(section: Mapping[str, Any]) -> Trust:
    names = ("cacert", "cert", "key")
    ca, certificate, key = (_path(section, name) for name in names)
    return Trust(ca_file=ca, certificate=certificate, key=key, verify=section.get("verify") is not False)


def _consul(section: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    scheme, host, port = section.get("scheme") or "http", section.get("host") or "127.0.0.1", section.get("port")
    if _path(section, "url"):
        parts = urlsplit(str(section["url"]))
        scheme, host, port = parts.scheme or "http", parts.hostname or "127.0.0.1", parts.port
    token = section.get("token")
    headers = {"X-Consul-Token": str(token)} if token else {}
    return (Endpoint(f"{scheme}://{_with_port(str(host), port or 8500)}", _trust(section), headers),)


def _etcd(section: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    given = section.get("hosts") or section.get("host")
    hosts = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else []
    scheme = section.get("protocol") or "http"
    trust = _trust(section)
    return tuple(Endpoint(f"{scheme}://{_with_port(str(host).strip(), 2379)}", trust) for host in hosts)


def _with_port(host: str, port: int) -> str:
    """Return host:port; the host may have brackets, and a port of its own already."""
    bare = host.strip("[]")
    if bare.count(":") > 1 and "]:" not in host:
        return f"[{bare}]:{port}"
    return host if ":" in host.rpartition("]")[2] else f"{host}:{port}"
