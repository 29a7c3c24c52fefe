"""What a lab shall be: its nodes, the image that they boot, and what each one's node.yml says."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from foundry import files
from foundry.errors import ConfigError, FoundryError

Dcs = Literal["consul", "etcd3"]
Profile = Literal["default", "fast"]

NETWORK = ipaddress.ip_network("10.129.0.0/24")
STORE = "10.129.0.10"
"""Where etcd answers in a lab that uses it."""
CLIENT = "10.129.0.2"
"""Where clients of the cluster connect from."""
CA = "/etc/patroni/tls/ca.pem"
FIRST = 21
MOST_NODES = 9
"""Each of them is a Consul server, of which node.yml takes so many."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")

# ttl 20 and retry_timeout 3 are the least that Patroni takes (patroni/config.py, _validate_and_adjust_timeouts), and
# loop_wait + 2 * retry_timeout may not exceed ttl.
PROFILES: Mapping[Profile, Mapping[str, int]] = {
    "default": {},
    "fast": {"ttl": 20, "loop_wait": 2, "retry_timeout": 5},
}


@dataclass(frozen=True)
class Node:
    """One member: its name, and its address in NETWORK."""

    name: str
    address: str

    @property
    def mac(self) -> str:
        return f"52:54:00:00:00:{int(self.address.rpartition('.')[2]):02x}"


def node(number: int) -> Node:
    """The node of a number, counted from 1: pg-srv1 is 10.129.0.21, as in the tutorial."""
    return Node(f"pg-srv{number}", f"10.129.0.{FIRST + number - 1}")


@dataclass(frozen=True)
class Plan:
    """A lab. image, format: the disk that all nodes boot. machine: of foundry.machine.MAKERS. key: the cluster's.

    memory_mib: MiB of each virtual machine. dcs_settings: more of bootstrap.dcs. protection: the keys
    of node.yml that say what protects the cluster. accelerator: of virtual machines, "kvm" or "tcg".
    """

    name: str
    image: str
    nodes: int = 3
    machine: str = "container"
    dcs: Dcs = "consul"
    profile: Profile = "default"
    cluster: str = "pg-15-cluster"
    format: str = "qcow2"
    cpus: int = 1
    memory_mib: int = 1024
    accelerator: str = "tcg"
    dcs_settings: Mapping[str, Any] = field(default_factory=dict)
    protection: Mapping[str, Any] = field(default_factory=lambda: {"tls": "auto"})
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def members(self) -> list[Node]:
        return [node(number) for number in range(1, self.nodes + 1)]

    def node_yml(self, member: Node, servers: list[Node] | None = None) -> str:
        """The node.yml of a member. servers: who is listed as the store's servers (default: the first members)."""
        store: dict[str, Any] = {"consul": {"join": [n.address for n in servers or self.members]}}
        if self.dcs == "etcd3":
            store = {"etcd3": {"hosts": [f"{STORE}:2379"]}}
        text: dict[str, Any] = {
            "cluster": self.cluster,
            "name": member.name,
            "address": member.address,
            "networks": [str(NETWORK)],
            "dcs": store,
            "secrets": {"key": self.key},
            **self.protection,
        }
        wishes = {**PROFILES[self.profile], **self.dcs_settings}
        if wishes:
            text["patroni"] = {"bootstrap": {"dcs": wishes}}
        return yaml.safe_dump(text, sort_keys=False)

    @property
    def ttl(self) -> int:
        """How long a leader's lock lasts unless it is renewed, in seconds (Patroni's default: 30)."""
        return int({"ttl": 30, **PROFILES[self.profile], **self.dcs_settings}["ttl"])

    @property
    def tls(self) -> bool:
        """Whether PostgreSQL and the REST API speak TLS."""
        return self.protection.get("tls") not in (None, "off")

    def ask(self, member: Node, path: str) -> str:
        """A command that asks a member's REST API, on any node, as a user who may read its authority."""
        trust, scheme = (f"--cacert {CA} ", "https") if self.tls else ("", "http")
        return f"curl -sS -m 3 {trust}{scheme}://{member.address}:8008{path}"

    def save(self, path: Path) -> None:
        """Write the plan, readable by its owner only, since it holds the cluster's key."""
        files.write(path, files.canonical(asdict(self)) + "\n", mode=0o600)


def load(path: Path) -> Plan:
    """Read a plan back. Raises FoundryError when the file is none."""
    try:
        return Plan(**files.read_json(path))
    except TypeError as error:
        raise FoundryError(
            f"{path} is not a lab's plan", hint="`./inv cluster-down` removes what is left of it"
        ) from error


def check_name(name: str) -> None:
    """Raise ConfigError unless a lab can have that name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(_wrong_name(name))


def _wrong_name(name: str) -> str:
    return f"--name: {name!r} is not 1 to 31 of a-z, 0-9 and -, the first of them no -"


def check(name: str, nodes: str, machine: str, dcs: str, profile: str, known: list[str]) -> None:
    """Raise ConfigError, with every problem at once, unless the options of a lab make one. known: machines."""
    wrong = [] if _NAME.fullmatch(name) else [_wrong_name(name)]
    if not nodes.isdecimal() or not 1 <= int(nodes) <= MOST_NODES:
        wrong.append(f"--nodes: {nodes} is not a number from 1 to {MOST_NODES}")
    for option, value, choices in (
        ("machine", machine, known),
        ("dcs", dcs, ["consul", "etcd3"]),
        ("profile", profile, list(PROFILES)),
    ):
        if value not in choices:
            wrong.append(f"--{option}: {value} is not one of {', '.join(choices)}")
    if wrong:
        raise ConfigError("cluster-up: no lab can be made of these options", details="\n".join(wrong))
