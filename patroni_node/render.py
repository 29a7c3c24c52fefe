"""Settings, identity, address, secrets and sizes in; the text of the node's configuration files out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from patroni_node import archive, consul_agent, network, tuning
from patroni_node.dcs import Consul
from patroni_node.document import merge
from patroni_node.errors import NodeError
from patroni_node.model import Node, Settings
from patroni_node.network import IP, Network
from patroni_node.paths import POSTGRESQL_MAJOR, Paths, template_dir

USERS = {"superuser": "postgres", "replication": "replicator", "rewind": "rewind"}

# What `tuning.parameters` may replace; written once, since Patroni takes the last of two equal keys without a word.
CLUSTER_PARAMETERS: Mapping[str, Any] = {
    "wal_level": "replica",
    "hot_standby": "on",
    "wal_log_hints": "on",
    "wal_keep_size": "128MB",
    "max_wal_senders": 10,
    "max_replication_slots": 10,
    "password_encryption": "scram-sha-256",
    # Without a tested archive_command WAL would pile up until the disk is full.
    "archive_mode": "off",
    "max_connections": 100,
}

PATRONI_TEMPLATE = "patroni/patroni.yml.j2"
CONSUL_TEMPLATE = "consul.d/patroni-node.json.j2"

# Paths as the rendered files spell them, whatever root a test writes below.
_HERE = Paths()


@dataclass(frozen=True)
class Rendered:
    """The texts, complete and parsed once; their repr shows no secret.

    consul_json: None without a local agent. huge_pages: sysctl's file, None where they are not worth it.
    """

    patroni_yml: str = field(repr=False)
    consul_json: str | None = field(repr=False)
    huge_pages: str | None = None


def permitted(settings: Settings, own: IP) -> tuple[Network, ...]:
    """Return the networks that may connect: as given, else the known servers; this node always.

    A whole subnet is never guessed: on a cloud it can hold other people's machines.
    """
    peers = settings.dcs.peers(own) if isinstance(settings.dcs, Consul) else ()
    given = settings.networks or tuple(network.own_network(ip) for ip in peers)
    mine = network.own_network(own)
    covered = any(mine.version == net.version and own in net for net in given)
    return given if covered else (mine, *given)


def context(node: Node) -> dict[str, Any]:
    """Return all that the templates may use."""
    settings, own = node.settings, node.address
    networks = permitted(settings, own)
    versions = sorted({own.version, *(net.version for net in networks)})
    everywhere = {4: "0.0.0.0", 6: "[::]"}
    local, cluster = _parameters(node)
    return {
        "cluster": settings.cluster,
        "name": node.name,
        "address": str(own),
        "host": network.bracketed(own),
        "networks": [str(net) for net in networks],
        "hba_type": "hostssl" if node.tls else "host",
        "postgresql_listen": ",".join(everywhere[version] for version in versions) + ":5432",
        # Patroni's REST API takes one address; its [::] socket takes IPv4 too (api.py, dual stack).
        "restapi_listen": f"{everywhere[versions[-1]]}:8008",
        "watchdog": settings.watchdog,
        "dcs": _store(node),
        "consul": consul_agent.context(node),
        "tls": _tls(node),
        "tags": settings.tags,
        "callbacks": settings.callbacks,
        "archive": archive.patroni_options(settings.archive),
        "parameters": {"local": local, "cluster": cluster},
        "major": POSTGRESQL_MAJOR,
        "users": USERS,
        "secrets": vars(node.secrets),
    }


def _sizes(node: Node) -> dict[str, tuning.Value]:
    wishes = node.settings.tuning
    return {} if wishes is None else tuning.parameters(node.hardware, wishes)


def _huge_pages(node: Node) -> str | None:
    pages = tuning.huge_pages(_sizes(node))
    return f"# Written by patroni-node from the size of this machine.\nvm.nr_hugepages = {pages}\n" if pages else None


def _parameters(node: Node) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """PostgreSQL's parameters: this node's own, and those that Patroni takes from the cluster's configuration only."""
    settings = node.settings
    local: dict[str, Any] = {}
    cluster: dict[str, Any] = dict(CLUSTER_PARAMETERS)
    if settings.tuning is not None:
        if not (node.hardware.memory or settings.tuning.memory):
            message = "is missing: this machine does not say how much memory it has"
            raise NodeError(settings.document.problem(("tuning", "memory"), message))
        own, shared = tuning.split(_sizes(node))
        local |= own
        cluster |= shared
    files = _tls(node)
    if files is not None:
        local |= {"ssl": "on", "ssl_cert_file": files["certificate"], "ssl_key_file": files["key"]}
        local |= {"ssl_ca_file": files["ca"]}
    if settings.archive is not None:
        local |= archive.parameters(settings.archive)
    return local, cluster


def _tls(node: Node) -> dict[str, str] | None:
    if not node.tls:
        return None
    folder = _HERE.tls
    return {"ca": f"{folder}/ca.pem", "certificate": f"{folder}/node.pem", "key": f"{folder}/node.key"}


def _store(node: Node) -> dict[str, Any]:
    """What Patroni's own section for the store says."""
    dcs = node.settings.dcs
    files: dict[str, str] = {}
    if dcs.tls is not None and not (isinstance(dcs, Consul) and dcs.local):
        files = {"cacert": f"{_HERE.tls}/dcs-ca.pem"}
        if node.dcs_certificate:
            files |= {"cert": f"{_HERE.tls}/dcs.pem", "key": f"{_HERE.tls}/dcs.key"}
    if not isinstance(dcs, Consul):
        return {"kind": "etcd3", "hosts": list(dcs.hosts), "username": dcs.username, "tls": files}
    return {
        "kind": "consul",
        "local": dcs.local,
        "host": f"{'127.0.0.1' if dcs.local else _host(dcs.host)}:{8500 if dcs.local else dcs.port}",
        "scheme": "https" if files else "http",
        "datacenter": None if dcs.local else dcs.datacenter,
        "register_service": dcs.register_service,
        "tls": files,
    }


def _host(text: str) -> str:
    return f"[{text}]" if ":" in text and not text.startswith("[") else text


def as_yaml(value: Any) -> str:
    """Return value as one line of YAML 1.1 that PyYAML, and so Patroni, reads as the same value.

    JSON is not quite that: PyYAML reads its pairs of surrogates (JSON's way to write an emoji) as two characters that
    are none, and 1e-07 as a text; and of a mapping's unquoted keys it reads `on` and `y` as booleans.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(str(name))}: {as_yaml(below)}" for name, below in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(json.dumps(c)[1:-1] if c <= "\uffff" else f"\\U{ord(c):08x}" for c in value) + '"'
    text = json.dumps(value)
    return text.replace("e", ".0e", 1) if isinstance(value, float) and "." not in text else text


def render(node: Node) -> Rendered:
    """Render the files and parse them again, so that nothing unreadable is ever written.

    Raises:
        NodeError: when what was rendered is no YAML mapping or no JSON object.
    """
    environment = Environment(
        loader=FileSystemLoader(template_dir()),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # YAML and JSON are no HTML: every value goes through yaml or tojson
    )
    environment.filters["yaml"] = as_yaml
    values = context(node)
    patroni = environment.get_template(PATRONI_TEMPLATE).render(values)
    consul = None
    if values["consul"] is not None:
        consul = _consul_text(environment.get_template(CONSUL_TEMPLATE).render(values))
    return Rendered(_patroni_text(patroni, node.settings.patroni), consul, _huge_pages(node))


def _patroni_text(text: str, extra: Mapping[str, Any]) -> str:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = None
    if not isinstance(data, dict):
        raise NodeError(f"{PATRONI_TEMPLATE} did not render to a YAML mapping: its template is damaged")
    if not extra:
        return text
    header = "".join(line + "\n" for line in text.splitlines()[:2])
    # Not allow_unicode: PyYAML writes U+0085 and U+2028 as they are then, and reads them as line breaks.
    return header + yaml.safe_dump(merge(data, extra), sort_keys=False, width=120)


def _consul_text(text: str) -> str:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise NodeError(f"{CONSUL_TEMPLATE} did not render to a JSON object: its template is damaged")
    return text
