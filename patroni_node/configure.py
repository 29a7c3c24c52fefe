"""What patroni-node.service does at every boot."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from patroni_node import authority, clone, identity, neighbours, notice
from patroni_node.dcs import Consul
from patroni_node.decide import Machine, decide
from patroni_node.errors import NodeError
from patroni_node.install import NoAccounts, Target, install, take
from patroni_node.network import IP
from patroni_node.paths import Paths


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
            `ready` mark is gone, without which Patroni and Consul do not start, and that others
            may no longer read the key.
    """
    machine = machine or Machine()
    paths.ready.unlink(missing_ok=True)
    # First, since what is refused may hold the key all the same.
    _close_to_others(paths)
    if paths.live:
        # HashiCorp's package gives it to consul; Debian's does not.
        take(paths.consul_json.parent)
    decided = decide(paths, machine, wait, ask=True, before=authority.RENEW_BEFORE)
    wanted, who, own = decided.settings, decided.who, decided.address
    peers = wanted.dcs.peers(own) if isinstance(wanted.dcs, Consul) and wanted.dcs.mode == "server" else ()
    neighbours.require_unique(wanted.cluster, who.name, own, peers, decided.certificates, machine.fetch)
    clone.forget(paths, identity.earlier(paths), who)
    changed = install(decided.targets, machine.owners(paths))
    if {paths.restart_drop_in, paths.consul_drop_in} & set(changed):
        (machine.reload_units or (_reload_units if paths.live else _nothing))()
    notice.clear(paths)
    install([Target(paths.ready, b"", 0o644)], NoAccounts())
    return Outcome(wanted.cluster, who.name, own, changed)


def _reload_units() -> None:
    try:
        subprocess.run(["systemctl", "daemon-reload"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise NodeError(f"`systemctl daemon-reload` failed ({type(error).__name__}): run it by hand") from None


def _nothing() -> None:
    return


def _close_to_others(paths: Paths) -> None:
    """Take node.yml, and user-data, from everybody but the owner: cloud-init writes 0644 unless told otherwise."""
    for path in [paths.node_file, *paths.drop_ins.glob("*.yml"), paths.instance_data]:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                os.chmod(path, mode & 0o700)
        except OSError:
            # A read-only or vanished source of the configuration is no reason to stay down.
            continue
