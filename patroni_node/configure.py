"""What patroni-node.service does at every boot."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from patroni_node import identity, network, notice, render, settings
from patroni_node.errors import AddressAbsentError, NodeError
from patroni_node.install import Accounts, NoAccounts, SystemAccounts, Target, install
from patroni_node.network import IP, AddressChoice, RunIp
from patroni_node.paths import Paths

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Machine:
    """The parts of the machine that tests replace."""

    run_ip: RunIp = network.run_ip
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
    files = render.render(wanted, who.name, own)
    accounts = machine.accounts or (SystemAccounts() if paths.live else NoAccounts())
    _require_consul(accounts)
    changed = install(
        [
            Target(paths.patroni_yml, files.patroni_yml.encode(), 0o640, "root", "postgres"),
            Target(paths.consul_json, files.consul_json.encode(), 0o640, "root", "consul"),
            Target(paths.identity, who.to_json(), 0o644),
        ],
        accounts,
    )
    _close_to_others(paths)
    notice.clear(paths)
    install([Target(paths.ready, b"", 0o644)], NoAccounts())
    return Outcome(wanted.cluster, who.name, own, changed)


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
