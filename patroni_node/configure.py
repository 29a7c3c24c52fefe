"""What patroni-node.service does at every boot."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from patroni_node import archive, clone, hardware, identity, neighbours, network, notice, render, secret, settings, tls
from patroni_node.dcs import Consul
from patroni_node.errors import AddressAbsentError, NodeError
from patroni_node.install import Accounts, NoAccounts, SystemAccounts, Target, install
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


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    cluster: str
    name: str
    address: IP
    changed: list[Path] = field(default_factory=list)


def configure(paths: Paths, machine: Machine | None = None, wait: float = 0.0) -> Outcome:
    """Turn node.yml into patroni.yml and Consul's configuration.

    Args:
        paths: where everything is.
        machine: for tests.
        wait: seconds to wait for an address that is not there yet.

    Returns:
        Who this node is and which files changed.

    Raises:
        NodeError: with every problem. No file of the node was changed then, except that the
            `ready` mark is gone, without which Patroni and Consul do not start.
    """
    machine = machine or Machine()
    paths.ready.unlink(missing_ok=True)
    wanted = settings.load(paths)
    who = identity.resolve(paths, wanted.name, machine.host_name)
    own = _address(wanted.address, paths, machine, wait)
    reader = Reader(paths, wanted.document.problem)
    pems = _certificates(wanted, reader, own, machine)
    peers = wanted.dcs.peers(own) if isinstance(wanted.dcs, Consul) and wanted.dcs.mode == "server" else ()
    neighbours.require_unique(wanted.cluster, who.name, own, peers, pems.own, machine.fetch)
    node = render.Node(
        settings=wanted,
        name=who.name,
        address=own,
        secrets=_secrets(wanted, reader),
        hardware=hardware.read(paths.root),
        dcs_certificate=pems.dcs is not None and pems.dcs.certificate is not None,
    )
    files = render.render(node)
    accounts = machine.accounts or (SystemAccounts() if paths.live else NoAccounts())
    if files.consul_json is not None:
        _require_consul(accounts)
    archive.require(wanted, paths)
    clone.forget(paths, identity.earlier(paths), who)
    changed = install(
        [
            Target(paths.patroni_yml, files.patroni_yml.encode(), 0o640, "root", "postgres"),
            *_consul_targets(paths, files, pems),
            *_tls_targets(paths, wanted, pems),
            *_archive_targets(paths, wanted),
            _text(paths.huge_pages, files.huge_pages, 0o644),
            _restart_target(paths, wanted.restart),
            Target(paths.identity, who.to_json(), 0o644),
        ],
        accounts,
    )
    if paths.restart_drop_in in changed:
        (machine.reload_units or (_reload_units if paths.live else _nothing))()
    _close_to_others(paths)
    notice.clear(paths)
    install([Target(paths.ready, b"", 0o644)], NoAccounts())
    return Outcome(wanted.cluster, who.name, own, changed)


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


def _reload_units() -> None:
    try:
        subprocess.run(["systemctl", "daemon-reload"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise NodeError(f"`systemctl daemon-reload` failed ({type(error).__name__}): run it by hand") from None


def _nothing() -> None:
    return


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


def _close_to_others(paths: Paths) -> None:
    """Take node.yml from everybody but its owner: cloud-init writes files 0644 unless told otherwise."""
    for path in [paths.node_file, *paths.drop_ins.glob("*.yml")]:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                os.chmod(path, mode & 0o700)
        except OSError:
            # A read-only or vanished source of the configuration is no reason to stay down.
            continue
