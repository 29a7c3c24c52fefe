"""Replace a certificate of the cluster's own authority long before its end, and let everybody read it."""

from __future__ import annotations

from pathlib import Path

from patroni_node import authority, commands
from patroni_node.commands import Run
from patroni_node.decide import Machine, decide
from patroni_node.errors import NodeError
from patroni_node.install import install
from patroni_node.paths import Paths

RELOAD_SECONDS = 60.0
RELOADED = ("consul", "patroni")
"""Consul and Patroni read certificates again on SIGHUP, and Patroni lets PostgreSQL do so."""


def renew(paths: Paths, machine: Machine | None = None, run: Run = commands.run) -> list[Path]:
    """Issue a new certificate if the present one is due; nothing else that node.yml asks for is written.

    Returns:
        The files that changed.

    Raises:
        NodeError: when node.yml is refused, or a service that runs could not be told to read them again.
    """
    machine = machine or Machine()
    if not paths.ready.exists():
        return []
    decided = decide(paths, machine, before=authority.RENEW_BEFORE)
    own = paths.tls / "ca.pem"
    kept = {own, paths.tls / "node.pem", paths.tls / "node.key"}
    kept |= {paths.consul_ca, paths.consul_checks_ca, paths.consul_certificate, paths.consul_key}
    due = [target for target in decided.targets if target.path in kept and target.path.exists()]
    if any(t.content is None or (t.path == own and t.path.read_bytes() != t.content) for t in due):
        # node.yml asks for another authority, or for none: that is for `systemctl restart patroni-node`.
        return []
    changed = install(due, machine.owners(paths))
    if changed:
        _reload(run)
    return changed


def _reload(run: Run) -> None:
    active = [name for name, unit in commands.units(RELOADED, run).items() if unit.active == "active"]
    wrong = []
    for name in active:
        done = run(["systemctl", "reload", f"{name}.service"], RELOAD_SECONDS, commands.never)
        if done.code != 0:
            wrong.append(f"{name} goes on with the old certificate ({done.first}): run `systemctl reload {name}`")
    if wrong:
        raise NodeError("; ".join(wrong))
