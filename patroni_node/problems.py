"""What is not as it should be on a node, each in a sentence that ends with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from patroni_node.commands import PATRONICTL, Unit
from patroni_node.report import Report
from patroni_node.store import StoreState

CTL = " ".join(PATRONICTL)
JOURNAL = "`journalctl -u {}` tells why"
APPLY = "systemctl restart patroni-node && systemctl reload patroni"
PAUSED = "MAINTENANCE MODE: cluster {} is paused, so nothing fails over: when {}, run `{}`"
_UNKNOWN = Unit("")


def resume(cluster: str) -> str:
    """Return the command that ends a cluster's maintenance mode."""
    return f"{CTL} resume {cluster}"


def sentences(report: Report) -> list[str]:
    """Return a sentence for each problem; the loudest comes first."""
    return [*_paused(report), *_configuration(report), *_store(report), *_patroni(report)]


def apply(units: dict[str, Unit]) -> str:
    """Return what makes a changed node.yml effective, as the services are now."""
    if units.get("patroni", _UNKNOWN).active in ("active", "activating", "reloading"):
        return APPLY
    ran = units.get("patroni-node", _UNKNOWN).active == "active"
    return "systemctl restart patroni-node && systemctl start patroni" if ran else "systemctl start patroni"


def changed(outdated: Sequence[Path], units: dict[str, Unit], *, consul_here: bool) -> str | None:
    """Return the sentence of a node.yml that asks for something else than what is rendered; None where it does not."""
    if not outdated:
        return None
    paths = ", ".join(map(str, outdated))
    consul = consul_here and any("consul.d" in path.parts for path in outdated)
    then = ", then on one node after the other `systemctl restart consul`" if consul else ""
    return f"not rendered as node.yml asks for now: {paths}: run `{apply(units)}`{then}"


def _paused(report: Report) -> Iterator[str]:
    if report.paused:
        cluster = report.configured.cluster
        # Resumed before, it would get a second primary if the one here is its leader.
        when = "Patroni runs here again" if report.alone else "the work is done"
        yield PAUSED.format(cluster, when, resume(cluster))


def _configuration(report: Report) -> Iterator[str]:
    configured, units = report.configured, report.units
    unit = units.get("patroni-node", _UNKNOWN)
    for refusal in configured.refusals:
        yield f"{refusal}; then run `{apply(units)}`"
    if configured.refusals:
        return
    sentence = changed(configured.outdated, units, consul_here=configured.consul_here)
    if sentence:
        yield sentence
    if unit.active == "failed":
        said = " ".join(configured.last_refusal) or JOURNAL.format("patroni-node")
        yield f"patroni-node.service has failed, and node.yml is accepted now: run `{apply(units)}` (it said: {said})"
    elif unit.active not in ("active", "activating", ""):
        yield f"patroni-node.service is {unit}, so neither Consul nor Patroni starts: run `{apply(units)}`"


def _store(report: Report) -> Iterator[str]:
    state, unit = report.store, report.units.get("consul")
    if unit is not None and unit.active not in ("active", ""):
        next_step = f"run `systemctl start consul`; {JOURNAL.format('consul')}"
        yield f"Consul does not run on this node (consul.service is {unit}), and Patroni needs it: {next_step}"
    elif state is not None and state.asked and not state.answers:
        yield f"{_servers(state)} does not answer ({state.failure}): {_reach(unit)}"
    elif state is not None and state.answers and not state.has_leader:
        yield (
            f"{_servers(state)} has no leader: more than half of its servers must run and reach each other;"
            " start those that do not run"
        )


def _servers(state: StoreState) -> str:
    return f"{state.kind} at {', '.join(state.servers)}"


def _reach(unit: Unit | None) -> str:
    return JOURNAL.format("consul") if unit else "see that it runs, and that this node reaches it"


def _patroni(report: Report) -> Iterator[str]:
    unit, member = report.units.get("patroni", _UNKNOWN), report.member
    journal = JOURNAL.format("patroni")
    if not member.answers:
        if unit.active in ("active", "reloading"):
            yield f"Patroni does not answer at {report.url} ({member.failure}), though it runs: {journal}"
        elif unit.active == "activating":
            yield f"Patroni is not up yet (patroni.service is {unit}): {journal}"
        else:
            command = apply(report.units) if report.configured.outdated else "systemctl start patroni"
            yield f"Patroni does not run (patroni.service is {unit}): run `{command}`; {journal}"
        if report.alone:
            yield "PostgreSQL runs on this node without Patroni: it is in no failover, and nothing watches over it"
        return
    if not member.runs:
        yield f"PostgreSQL does not run on this member (its state: {member.state or 'unknown'}): {journal}"
    elif member.role == "replica" and member.replication != "streaming" and not member.by_archive:
        state = member.replication or "no connection to its source"
        yield f"this replica does not stream ({state}), so it falls behind: {journal}"
    if member.failsafe:
        yield f"Patroni does not reach the store and goes on in failsafe mode: bring the store back; {journal}"
    elif report.cluster.answers and report.cluster.leader is None:
        yield "the cluster has no leader: see that its other members run; " + journal
    if member.watchdog_failed:
        yield "the watchdog, which node.yml requires, does not work, so this member cannot lead: load softdog"
    if member.restart_for is not None:
        what = ", ".join(member.restart_for) or "its configuration"
        command = f"{CTL} restart {report.configured.cluster} {report.configured.name}"
        yield f"PostgreSQL takes over {what} when it is restarted: run `{command}`"
