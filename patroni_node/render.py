"""Settings, identity, address and secrets in; the text of the node's configuration files out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from patroni_node import network, secret
from patroni_node.document import merge
from patroni_node.errors import NodeError
from patroni_node.network import IP, Network
from patroni_node.paths import POSTGRESQL_MAJOR, template_dir
from patroni_node.settings import Settings

USERS = {"superuser": "postgres", "replication": "replicator", "rewind": "rewind"}

PATRONI_TEMPLATE = "patroni/patroni.yml.j2"
CONSUL_TEMPLATE = "consul.d/patroni-node.json.j2"


@dataclass(frozen=True)
class Rendered:
    """The two files, complete and parsed once; their repr shows no secret."""

    patroni_yml: str = field(repr=False)
    consul_json: str = field(repr=False)


def permitted(settings: Settings, own: IP) -> tuple[Network, ...]:
    """Return the networks that may connect: as given, else the known servers; this node always.

    A whole subnet is never guessed: on a cloud it can hold other people's machines.
    """
    given = settings.networks or tuple(network.own_network(ip) for ip in settings.consul.peers(own))
    mine = network.own_network(own)
    covered = any(mine.version == net.version and own in net for net in given)
    return given if covered else (mine, *given)


def context(settings: Settings, name: str, own: IP) -> dict[str, Any]:
    """Return all that the templates may use."""
    networks = permitted(settings, own)
    consul = settings.consul
    versions = sorted({own.version, *(net.version for net in networks)})
    everywhere = {4: "0.0.0.0", 6: "[::]"}
    return {
        "cluster": settings.cluster,
        "name": name,
        "address": str(own),
        "host": network.bracketed(own),
        "networks": [str(net) for net in networks],
        "postgresql_listen": ",".join(everywhere[version] for version in versions) + ":5432",
        # Patroni's REST API takes one address; its [::] socket takes IPv4 too (api.py, dual stack).
        "restapi_listen": f"{everywhere[versions[-1]]}:8008",
        "consul": {
            "expect": consul.servers(own),
            "retry_join": [network.bracketed(ip) for ip in consul.peers(own)],
            "datacenter": consul.datacenter,
        },
        "major": POSTGRESQL_MAJOR,
        "users": USERS,
        "secrets": secret.derive(settings.key, settings.cluster),
    }


def render(settings: Settings, name: str, own: IP) -> Rendered:
    """Render both files and parse them again, so that nothing unreadable is ever written.

    Raises:
        NodeError: when what was rendered is no YAML mapping or no JSON object.
    """
    environment = Environment(
        loader=FileSystemLoader(template_dir()),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # YAML and JSON are no HTML: every value goes through tojson
    )
    values = context(settings, name, own)
    patroni = environment.get_template(PATRONI_TEMPLATE).render(values)
    consul = environment.get_template(CONSUL_TEMPLATE).render(values)
    return Rendered(_patroni_text(patroni, settings.patroni), _consul_text(consul))


def _patroni_text(text: str, extra: dict[str, Any]) -> str:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = None
    if not isinstance(data, dict):
        raise NodeError(f"{PATRONI_TEMPLATE} did not render to a YAML mapping: its template is damaged")
    if not extra:
        return text
    header = "".join(line + "\n" for line in text.splitlines()[:2])
    return header + yaml.safe_dump(merge(data, extra), sort_keys=False, allow_unicode=True, width=120)


def _consul_text(text: str) -> str:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise NodeError(f"{CONSUL_TEMPLATE} did not render to a JSON object: its template is damaged")
    return text
