"""The seed: what cloud-init's NoCloud datasource reads at a machine's first boot, as files and as an ISO image."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foundry import files, run

VOLUME = "CIDATA"
# A container's card is called so already, where nothing could rename it.
INTERFACE = "eth0"
NODE_YML = "/etc/patroni/node.yml"


@dataclass(frozen=True)
class StaticAddress:
    """A fixed address. cidr: address and prefix length, "10.0.2.15/24". match: netplan's, which finds the interface."""

    cidr: str
    match: tuple[tuple[str, str], ...]
    gateway: str | None = None
    nameservers: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return str(ipaddress.ip_interface(self.cidr).ip)


@dataclass(frozen=True)
class NodeSeed:
    """One node's identity. node_yml: the text of its node.yml, or None for a machine that gets none.

    ssh_public_key: public keys, one a line, or an empty text. static: its address, or None for DHCP. network: a
    network-config (version 2) in place of what static says. user_data: the whole text, in place of node_yml and keys.
    """

    instance_id: str
    hostname: str
    node_yml: str | None
    ssh_public_key: str
    static: StaticAddress | None = None
    network: Mapping[str, Any] | None = None
    user_data: str | None = None


def documents(seed: NodeSeed) -> dict[str, str]:
    """The seed's files: name to text. network-config is absent where the address comes by DHCP."""
    keys = public_keys(seed.ssh_public_key)
    user: dict[str, Any] = {"ssh_authorized_keys": keys} if keys else {}
    if seed.node_yml is not None:
        node = {"path": NODE_YML, "owner": "root:root", "permissions": "0600", "content": seed.node_yml}
        user["write_files"] = [node]
    found = {
        "user-data": seed.user_data or "#cloud-config\n" + _yaml(user),
        "meta-data": _yaml({"instance-id": seed.instance_id, "local-hostname": seed.hostname}),
    }
    if seed.network is not None:
        found["network-config"] = _yaml(dict(seed.network))
    elif seed.static:
        found["network-config"] = _yaml({"version": 2, "ethernets": {INTERFACE: _ethernet(seed.static)}})
    return found


def public_keys(text: str) -> list[str]:
    """The keys of a text as in ~/.ssh/authorized_keys: one a line, # for a remark."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _ethernet(static: StaticAddress) -> dict[str, Any]:
    six = ipaddress.ip_interface(static.cidr).version == 6
    settings: dict[str, Any] = {"match": dict(static.match), "addresses": [static.cidr]}
    if static.gateway:
        settings["gateway6" if six else "gateway4"] = static.gateway
    if static.nameservers:
        settings["nameservers"] = {"addresses": list(static.nameservers)}
    return settings


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as such, for people to read."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def write(seed: NodeSeed, folder: Path) -> list[Path]:
    """Write the seed's files into folder, readable by their owner only, and return their paths."""
    paths = []
    for name, text in documents(seed).items():
        files.write(folder / name, text, mode=0o600)
        paths.append(folder / name)
    return paths


def iso(seed: NodeSeed, target: Path) -> Path:
    """Make target the seed's ISO image, with its files beside it in a folder of the same name.

    Raises ToolMissing without xorriso, CommandFailed when it fails.
    """
    sources = write(seed, target.with_suffix(""))
    run.find("xorriso", "xorriso")
    target.unlink(missing_ok=True)
    args: list[str | Path] = ["xorriso", "-as", "genisoimage", "-quiet", "-volid", VOLUME, "-joliet", "-rock"]
    run.run(
        [*args, "-output", target, *sources], name=f"seed-{seed.hostname}", what=f"seed of {seed.hostname}: xorriso"
    )
    target.chmod(0o600)
    return target
