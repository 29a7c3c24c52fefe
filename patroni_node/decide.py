"""What this node's files shall be: everything read and checked, nothing written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from patroni_node import archive, hardware, identity, neighbours, network, render, secret, settings, tls
from patroni_node.dcs import Consul
from patroni_node.errors import AddressAbsentError, NodeError
from patroni_node.identity import Identity
from patroni_node.install import Accounts, NoAccounts, SystemAccounts, Target
from patroni_node.model import Settings
from patroni_node.neighbours import Fetch
from patroni_node.network import IP, AddressChoice, RunIp
from patroni_node.paths import Paths
from patroni_node.sources import Reader
from patroni_node.tls import RunOpenssl, Tls

POLL_SECONDS = 0.5
RESTART = "on-failure"
"""What patroni.service says by itself."""


@dataclass(frozen=True)
class Machine:
    """The parts of the machine that tests replace."""

    run_ip: RunIp = network.run_ip
    run_openssl: RunOpenssl = tls.run_openssl
    fetch: Fetch = neighbours.fetch
    reload_units: Callable[[], None] | None = None
    host_name: str | None = None
    accounts: Accounts | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def owners(self, paths: Paths) -> Accounts:
        """Return who may own files below these paths."""
        return self.accounts or (SystemAccounts() if paths.live else NoAccounts())


@dataclass(frozen=True)
class Decision:
    """A node.yml that was accepted, and what it makes of this machine.

    targets: every file that may be there, those that shall not be included. certificates: of the node's own `tls:`.
    """

    settings: Settings
    who: Identity
    address: IP
    certificates: Tls | None = field(repr=False)
    targets: list[Target]


def decide(paths: Paths, machine: Machine, wait: float = 0.0) -> Decision:
    """Read node.yml and the machine, and decide what the node's files shall be.

    Args:
        paths: where everything is.
        machine: for tests.
        wait: seconds to wait for an address that is not there yet.

    Raises:
        NodeError: with every problem.
    """
    wanted = settings.load(paths)
    who = identity.resolve(paths, wanted.name, machine.host_name)
    own = _address(wanted.address, paths, machine, wait)
    reader = Reader(paths, wanted.document.problem)
    pems = _certificates(wanted, reader, own, machine)
    node = render.Node(
        settings=wanted,
        name=who.name,
        address=own,
        secrets=_secrets(wanted, reader),
        hardware=hardware.read(paths.root),
        dcs_certificate=pems.dcs is not None and pems.dcs.certificate is not None,
    )
    files = render.render(node)
    if files.consul_json is not None:
        _require_consul(machine.owners(paths))
    archive.require(wanted, paths)
    targets = [
        Target(paths.patroni_yml, files.patroni_yml.encode(), 0o640, "root", "postgres"),
        *_consul_targets(paths, files, pems),
        *_tls_targets(paths, wanted, pems),
        *_archive_targets(paths, wanted),
        _text(paths.huge_pages, files.huge_pages, 0o644),
        _restart_target(paths, wanted.restart),
        Target(paths.identity, who.to_json(), 0o644),
    ]
    return Decision(wanted, who, own, pems.own, targets)


@dataclass(frozen=True)
class _Pems:
    own: Tls | None
    dcs: Tls | None


_NONE = Tls("")


def _certificates(wanted: Settings, reader: Reader, own: IP, machine: Machine) -> _Pems:
    def load(sources: tls.TlsSources | None, address: IP | None) -> Tls | None:
        return None if sources is None else tls.load(sources, reader, address, machine.run_openssl)

    return _Pems(load(wanted.tls, own), load(wanted.dcs.tls, None))


def _secrets(wanted: Settings, reader: Reader) -> secret.Secrets:
    server = isinstance(wanted.dcs, Consul) and wanted.dcs.mode == "server"
    return secret.collect(wanted.secrets, wanted.cluster, reader, shared_gossip=server)


def _consul_targets(paths: Paths, files: render.Rendered, pems: _Pems) -> list[Target]:
    """Consul's files; without an agent on this node, none of an earlier configuration may start one."""
    here = files.consul_json is not None
    cas = [pem.ca.strip() + "\n" for pem in (pems.dcs, pems.own) if pem is not None and here]
    dcs = pems.dcs if pems.dcs is not None and here else _NONE
    return [
        _text(paths.consul_json, files.consul_json, 0o640, "consul"),
        _text(paths.consul_ca, "".join(cas) or None, 0o644),
        _text(paths.consul_certificate, dcs.certificate, 0o644),
        _text(paths.consul_key, dcs.key, 0o640, "consul"),
    ]


def _tls_targets(paths: Paths, wanted: Settings, pems: _Pems) -> list[Target]:
    local_agent = isinstance(wanted.dcs, Consul) and wanted.dcs.local
    dcs = pems.dcs if pems.dcs is not None and not local_agent else _NONE
    own = pems.own or _NONE
    return [
        _text(paths.tls / "ca.pem", own.ca or None, 0o644),
        _text(paths.tls / "node.pem", own.certificate, 0o644),
        _text(paths.tls / "node.key", own.key, 0o640, "postgres"),
        _text(paths.tls / "dcs-ca.pem", dcs.ca or None, 0o644),
        _text(paths.tls / "dcs.pem", dcs.certificate, 0o644),
        _text(paths.tls / "dcs.key", dcs.key, 0o640, "postgres"),
    ]


def _archive_targets(paths: Paths, wanted: Settings) -> list[Target]:
    if wanted.archive is None:
        return [Target(path, None) for path in (paths.pgbackrest_conf, paths.stanza) if archive.ours(paths)]
    return [
        # Its options may hold the repository's keys.
        _text(paths.pgbackrest_conf, archive.configuration(wanted.archive), 0o640, "postgres"),
        _text(paths.stanza, f"{wanted.archive.stanza}\n", 0o644),
    ]


def _text(path: Path, text: str | None, mode: int, group: str = "root") -> Target:
    return Target(path, None if text is None else text.encode(), mode, "root", group)


def _restart_target(paths: Paths, restart: str) -> Target:
    text = f"# Written by patroni-node from `restart:` of node.yml.\n[Service]\nRestart={restart}\n"
    return _text(paths.restart_drop_in, None if restart == RESTART else text, 0o644)


def _address(choice: AddressChoice, paths: Paths, machine: Machine, wait: float) -> IP:
    """Choose the address, giving DHCP and IPv6's duplicate address detection time to finish."""
    deadline = machine.clock() + wait
    while True:
        try:
            return network.choose(choice, network.read_host(machine.run_ip), str(paths.node_file))
        except AddressAbsentError:
            if machine.clock() >= deadline:
                raise
        machine.sleep(POLL_SECONDS)


def _require_consul(accounts: Accounts) -> None:
    try:
        accounts.ids("consul", "consul")
    except KeyError:
        message = "Consul is not installed (no user consul): apt install the consul .deb delivered beside this package"
        raise NodeError(message) from None
