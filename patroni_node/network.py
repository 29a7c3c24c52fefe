"""Which of the machine's addresses is this node's, decided anew at every boot."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from patroni_node.errors import AddressAbsentError, NodeError, Problem

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RunIp = Callable[[list[str]], str]
"""Takes arguments of ip(8), returns its standard output."""


@dataclass(frozen=True)
class AddressChoice:
    """What node.yml says about the address; at most one of the three is set."""

    literal: IP | None = None
    interface: str | None = None
    cidr: Network | None = None


@dataclass(frozen=True)
class HostAddress:
    """One usable address of the machine."""

    interface: str
    ip: IP


@dataclass(frozen=True)
class Host:
    """The machine's addresses and the interfaces of its default routes, IPv4's and IPv6's."""

    interfaces: tuple[str, ...]
    addresses: tuple[HostAddress, ...]
    default_routes: dict[int, tuple[str, ...]]


def run_ip(arguments: list[str]) -> str:
    """Run ip(8) and return its output.

    Raises:
        NodeError: when ip is missing, fails, or does not answer within ten seconds.
    """
    command = ["ip", *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except FileNotFoundError:
        raise NodeError("ip(8) is missing, so addresses cannot be read: apt install iproute2") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise NodeError(f"`{' '.join(command)}` failed ({type(error).__name__})") from None


def read_host(run: RunIp = run_ip) -> Host:
    """Read the machine's addresses and default routes through `ip -j`.

    Left out: loopback and link-local addresses, those of interfaces that are down, and IPv6 addresses that are
    deprecated, temporary (they change under way) or still tentative.
    """
    links = _json(run, ["-j", "addr"])
    addresses = [
        HostAddress(str(link["ifname"]), ipaddress.ip_address(info["local"]))
        for link in links
        if "UP" in link.get("flags", [])
        for info in link.get("addr_info", [])
        if _usable(info)
    ]
    routes = {
        version: tuple(dict.fromkeys(_devices(_json(run, ["-j", f"-{version}", "route", "show", "default"]))))
        for version in (4, 6)
    }
    return Host(tuple(str(link["ifname"]) for link in links if "ifname" in link), tuple(addresses), routes)


def _json(run: RunIp, arguments: list[str]) -> list[dict[str, Any]]:
    try:
        answer = json.loads(run(arguments) or "[]")
    except ValueError:
        raise NodeError(f"`ip {' '.join(arguments)}` gave no JSON: iproute2 is too old or broken") from None
    return [entry for entry in answer if isinstance(entry, dict)]


def _devices(routes: Iterable[dict[str, Any]]) -> Iterable[str]:
    for route in routes:
        if route.get("dst") == "default":
            yield from (str(hop["dev"]) for hop in [route, *route.get("nexthops", [])] if "dev" in hop)


def _usable(info: dict[str, Any]) -> bool:
    if "local" not in info or any(info.get(flag) for flag in ("deprecated", "temporary", "tentative", "dadfailed")):
        return False
    ip = ipaddress.ip_address(info["local"])
    return not (ip.is_link_local or ip.is_loopback)


def choose(choice: AddressChoice, host: Host, file: str) -> IP:
    """Choose this node's address.

    Args:
        choice: what node.yml says; empty means the interface of the default route.
        host: what the machine has now.
        file: the node file, for messages.

    Returns:
        One address that the machine has. IPv4 goes before IPv6 on the same interface.

    Raises:
        AddressAbsentError: when there is none (a DHCP lease may still come).
        NodeError: when there are several: the choice is a person's.
    """
    if choice.literal is not None:
        return _literal(choice.literal, host, file)
    if choice.cidr is not None:
        found = [address.ip for address in host.addresses if address.ip in choice.cidr]
        return _only(found, f"{choice.cidr}", host, file)
    if choice.interface is not None:
        return _of_interface(choice.interface, host, file)
    return _default(host, file)


def _literal(literal: IP, host: Host, file: str) -> IP:
    if any(address.ip == literal for address in host.addresses):
        return literal
    raise _absent(f"{literal} is on no interface of this machine, which has {_listed(host)}", file)


def _of_interface(interface: str, host: Host, file: str) -> IP:
    if interface not in host.interfaces:
        names = ", ".join(name for name in host.interfaces if name != "lo") or "none"
        raise _absent(f"there is no interface {interface}; this machine has {names}", file)
    mine = [address.ip for address in host.addresses if address.interface == interface]
    return _only(_preferred(mine), interface, host, file)


def _default(host: Host, file: str) -> IP:
    for version in (4, 6):
        having = {address.interface for address in host.addresses if address.ip.version == version}
        routed = [name for name in host.default_routes.get(version, ()) if name in having]
        if len(routed) > 1:
            # Whichever metric wins today, two DHCP clients may finish in the other order tomorrow.
            message = f"default routes go through {' and '.join(routed)}: set `address: {{interface: {routed[0]}}}`"
            raise _refused(message + " (or the other)", file)
        if routed:
            return _of_interface(routed[0], host, file)
    return _only(
        _preferred([address.ip for address in host.addresses]), "this machine (which has no default route)", host, file
    )


def _preferred(found: list[IP]) -> list[IP]:
    return [ip for ip in found if ip.version == 4] or found


def _only(found: list[IP], where: str, host: Host, file: str) -> IP:
    if not found:
        raise _absent(f"{where} has no usable address; this machine has {_listed(host)}", file)
    if len(found) > 1:
        listed = ", ".join(str(ip) for ip in found)
        raise _refused(f"{where} has several addresses ({listed}): set `address:` to one of them", file)
    return found[0]


def _listed(host: Host) -> str:
    return ", ".join(f"{address.ip} ({address.interface})" for address in host.addresses) or "none"


def _refused(message: str, file: str) -> NodeError:
    return NodeError(Problem(message, file, key=("address",)))


def _absent(message: str, file: str) -> AddressAbsentError:
    return AddressAbsentError(Problem(f"{message}: set `address:`", file, key=("address",)))


def own_network(ip: IP) -> Network:
    """Return the /32 or /128 that holds exactly this address."""
    return ipaddress.ip_network(f"{ip}/{ip.max_prefixlen}")


def bracketed(ip: IP) -> str:
    """Return the address as host:port notation wants it (RFC 3986 section 3.2.2: IPv6 in brackets)."""
    return f"[{ip}]" if ip.version == 6 else str(ip)
