"""User-data for the nodes of a cluster: what NoCloud reads at their first boot, and one cloud-config for a whole group.

Sources: cloud-init 22.4's documentation, "NoCloud", "Networking Config Version 2" and "Instance Metadata".
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from foundry import files
from foundry.errors import ConfigError
from foundry.machine import seed
from patroni_node import document, settings
from patroni_node.errors import NodeError
from patroni_node.identity import SHARED_HOST_NAMES

KEY_FILE = "cluster.key"
SHARED_FILE = "shared.yaml"
SHARED_TEMPLATE = "shared.yaml.j2"
# systemd-networkd takes an interface's name as a pattern (systemd.network(5), [Match]).
ANY_CARD = "e*"

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NODE = re.compile(r"(?:(?P<name>[^=,]+)=)?(?P<address>[^=,]+)(?:,(?P<mac>(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}))?")
# A name is the machine's host name too: one label of it (RFC 1123, section 2.1).
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# A key's base64 begins with the length of its type's name, four bytes of which three are zero (RFC 4253, section 6.6).
_PUBLIC_KEY = re.compile(r"(?:.*\s)?(?:ssh|ecdsa|sk)-\S+\s+AAAA\S+(?:\s.*)?")


@dataclass(frozen=True)
class Node:
    """One machine of the cluster. mac: of the card that gets the address, None where the machine has only one."""

    name: str
    address: IP
    mac: str | None = None


@dataclass(frozen=True)
class Plan:
    """A cluster to be launched. ssh_keys: public keys, a line each; gateway and nameservers: the machines' own."""

    cluster: str
    network: Network
    nodes: tuple[Node, ...]
    ssh_keys: str = ""
    gateway: IP | None = None
    nameservers: tuple[IP, ...] = ()


def plan(
    cluster: str,
    network: str,
    nodes: Sequence[str],
    *,
    ssh_keys: str = "",
    gateway: str = "",
    nameservers: Sequence[str] = (),
) -> Plan:
    """Read what the command line says.

    Args:
        cluster: the scope.
        network: the network between the nodes, like 10.129.0.0/24.
        nodes: NAME=ADDRESS, or NAME=ADDRESS,MAC; names may be left out for a shared cloud-config.
        ssh_keys: public keys that may log in, one a line.
        gateway: the default route's, if any.
        nameservers: addresses of name servers.

    Raises:
        ConfigError: with everything that is wrong.
    """
    wrong: list[str] = []
    net = _read(ipaddress.ip_network, network, "--network", "a network like 10.129.0.0/24", wrong)
    found = [node for text in nodes if (node := _node(text, net, wrong)) is not None]
    if not nodes:
        wrong.append("name at least one node, like pg-srv1=10.129.0.21")
    columns: dict[str, list[Any]] = {
        "name": [node.name.lower() for node in found if node.name],
        "address": [node.address for node in found],
        "mac": [node.mac for node in found if node.mac],
    }
    for what, values in columns.items():
        wrong += [f"{value} is given twice: each node has its own {what}" for value in _twice(values)]
    route = _gateway(gateway, net, found, wrong) if gateway else None
    _insist_on_public(ssh_keys, wrong)
    servers = [_read(ipaddress.ip_address, text, "--nameserver", "an address", wrong) for text in nameservers]
    if wrong or net is None:
        raise ConfigError("user-data: the cluster cannot be made like this", details="\n".join(wrong))
    return Plan(cluster, net, tuple(found), ssh_keys, route, tuple(s for s in servers if s is not None))


def _read(kind: Callable[[str], Any], text: str, option: str, example: str, wrong: list[str]) -> Any:
    try:
        return kind(text)
    except ValueError:
        wrong.append(f"{option}: {text!r} is not {example}")
        return None


def _gateway(text: str, network: Network | None, nodes: Sequence[Node], wrong: list[str]) -> IP | None:
    route: IP | None = _read(ipaddress.ip_address, text, "--gateway", "an address", wrong)
    if route is None or network is None:
        return route
    # An IPv6 router announces itself by its link-local address (RFC 4861, section 4.2).
    beside = route.version == network.version == 6 and route.is_link_local
    if route not in network and not beside:
        wrong.append(f"--gateway: {route} is not in {network}, so no node could reach it")
    wrong += [f"--gateway: {route} is the address of {n.name or 'a node'}" for n in nodes if n.address == route]
    return route


def _insist_on_public(text: str, wrong: list[str]) -> None:
    """Whoever gives the private key's file by mistake must not find it in all user-data. Quotes nothing of it."""
    if any(_PUBLIC_KEY.fullmatch(line) is None for line in seed.public_keys(text)):
        wrong.append("--ssh-key: has a line that is no public key (ssh-ed25519 AAAA…): give the file that ends in .pub")


def _node(text: str, network: Network | None, wrong: list[str]) -> Node | None:
    found = _NODE.fullmatch(text)
    if found is None:
        wrong.append(f"{text!r} is not NAME=ADDRESS or NAME=ADDRESS,MAC")
        return None
    name = found["name"] or ""
    if name and _HOST.fullmatch(name) is None:
        wrong.append(f"{text}: a name is a host name too: at most 63 letters, digits and -, no - at either end")
    elif name and name.lower() in SHARED_HOST_NAMES:
        wrong.append(f"{text}: {name} is what machines without a name are called")
    address: IP | None = _read(ipaddress.ip_address, found["address"], text, "NAME=ADDRESS", wrong)
    if address is None:
        return None
    if network is not None and address not in network:
        wrong.append(f"{text}: {address} is not in {network}")
    elif network is not None and network.num_addresses > 2 and address in _ends(network):
        wrong.append(f"{text}: {address} is the network's own or its broadcast address")
    return Node(name, address, found["mac"] and found["mac"].lower())


def _ends(network: Network) -> tuple[IP, ...]:
    return (network.network_address, network.broadcast_address) if network.version == 4 else (network.network_address,)


def _twice(values: Sequence[Any]) -> list[Any]:
    return sorted({value for value in values if values.count(value) > 1}, key=str)


def read(path: Path, option: str) -> str:
    """Return a file's text; raises a ConfigError that names the option for one that cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigError(f"{option}: {path}: {why}") from None


def fresh_key() -> str:
    """Return a new secrets.key: 32 random bytes."""
    return secrets.token_urlsafe(32)


def write(wanted: Plan, key: str, target: Path) -> list[Path]:
    """Write each node's seed: NAME/user-data, meta-data and network-config, and NAME.iso; and the key beside them.

    The instance-id follows from key, cluster and name, so that seeds made again of the same key do not turn running
    machines into new ones.

    Args:
        wanted: the cluster.
        key: secrets.key of all nodes.
        target: a folder that does not exist yet; it comes whole or not at all.

    Returns:
        The key's file and the ISO images.

    Raises:
        ConfigError: when target exists, or a node.yml would be refused. ToolMissing, CommandFailed: of xorriso.
    """
    nameless = [str(node.address) for node in wanted.nodes if not node.name]
    if nameless:
        raise ConfigError(f"user-data: {', '.join(nameless)} has no name", hint="write NAME=ADDRESS, or --shared")
    texts = {node.name: _checked(_yaml(_node_yml(wanted, key, node)), node.name) for node in wanted.nodes}
    with _new_folder(target) as scratch:
        for node in wanted.nodes:
            (scratch / node.name).mkdir(mode=0o700)
            made = seed.NodeSeed(
                instance_id=f"{node.name}-{_digest(key, wanted.cluster, node.name)}",
                hostname=node.name,
                node_yml=texts[node.name],
                ssh_public_key=wanted.ssh_keys,
                network=_network_config(wanted, node),
            )
            seed.iso(made, scratch / f"{node.name}.iso")
        files.write(scratch / KEY_FILE, key + "\n", mode=0o600)
    return [target / KEY_FILE, *(target / f"{node.name}.iso" for node in wanted.nodes)]


def write_shared(wanted: Plan, key: str, templates: Path, target: Path) -> list[Path]:
    """Write one cloud-config for a group of machines: cloud-init fills in the name, patroni-node the address.

    Takes and raises what write does; returns the key's file and the cloud-config.
    """
    if wanted.gateway or wanted.nameservers or any(node.mac for node in wanted.nodes):
        raise ConfigError(
            "user-data: a shared cloud-config gives no address, so --gateway, --nameserver and a MAC are not for it",
            hint="leave them out: the machines get their addresses from the cloud or by DHCP",
        )
    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # YAML is no HTML: every value goes through tojson
    )
    environment.policies["json.dumps_function"] = _json
    values = {
        "cluster": wanted.cluster,
        "key": key,
        "network": str(wanted.network),
        "join": [str(node.address) for node in wanted.nodes],
        "ssh_keys": seed.public_keys(wanted.ssh_keys),
    }
    text = environment.get_template(SHARED_TEMPLATE).render(values)
    _checked(yaml.safe_load(as_at_boot(text, "any"))["write_files"][0]["content"], SHARED_FILE)
    with _new_folder(target) as scratch:
        files.write(scratch / SHARED_FILE, text, mode=0o600)
        files.write(scratch / KEY_FILE, key + "\n", mode=0o600)
    return [target / KEY_FILE, target / SHARED_FILE]


def as_at_boot(text: str, host_name: str) -> str:
    """Return what cloud-init makes of a shared cloud-config on a machine (its templater.py, jinja_render)."""
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False)
    return environment.from_string(text.partition("\n")[2]).render(v1={"local_hostname": host_name})


def _json(value: Any, **options: Any) -> str:
    """JSON that is YAML as well, and in which cloud-init's Jinja finds nothing to fill in."""
    return json.dumps(value, **{**options, "ensure_ascii": False}).replace("{", "\\u007b")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    if target.exists():
        raise ConfigError(
            f"user-data: {target} exists, and holds the key of a cluster",
            hint=f"give another --output; for more nodes of that cluster, --key {target / KEY_FILE} as well",
        )
    try:
        with files.whole_folder(target) as scratch:
            scratch.chmod(0o700)
            yield scratch
    except OSError as error:
        if files.out_of_space(error, target):
            raise
        raise ConfigError(f"--output: {target} cannot be made: {error.strerror}") from None


def _node_yml(wanted: Plan, key: str, node: Node) -> dict[str, Any]:
    return {
        "cluster": wanted.cluster,
        "name": node.name,
        "address": str(node.address),
        "networks": [str(wanted.network)],
        "secrets": {"key": key},
        "tls": "auto",
        "dcs": {"consul": {"join": [str(other.address) for other in wanted.nodes]}},
    }


def _checked(text: str, name: str) -> str:
    """Return a node.yml as it is, when a node would take it."""
    try:
        settings.build(document.parse(text, f"node.yml of {name}"), new=True)
    except NodeError as error:
        raise ConfigError("user-data: a node would refuse this", details=str(error)) from None
    return text


def _network_config(wanted: Plan, node: Node) -> Mapping[str, Any]:
    card: dict[str, Any] = {"match": {"macaddress": node.mac}} if node.mac else {}
    card["addresses"] = [f"{node.address}/{wanted.network.prefixlen}"]
    if wanted.gateway is not None:
        card[f"gateway{wanted.gateway.version}"] = str(wanted.gateway)
    if wanted.nameservers:
        card["nameservers"] = {"addresses": [str(server) for server in wanted.nameservers]}
    return {"version": 2, "ethernets": {seed.INTERFACE if node.mac else ANY_CARD: card}}


def _digest(key: str, *words: str) -> str:
    return hmac.new(key.encode(), "\0".join(words).encode(), hashlib.sha256).hexdigest()[:12]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
