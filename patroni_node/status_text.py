"""How `patroni-node status` reads: as lines for people, and as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from patroni_node.errors import printable
from patroni_node.member import LEADERS, Listed
from patroni_node.report import File, Report

WIDTH = 10


def document(report: Report, problems: Sequence[str]) -> dict[str, Any]:
    """Return the object that docs/node.md describes; what is not known is null."""
    configured, store, member, cluster = report.configured, report.store, report.member, report.cluster
    return {
        "ok": not problems,
        "problems": list(problems),
        "node": {
            "cluster": configured.cluster or None,
            "name": configured.name or None,
            "name_from": configured.name_from or None,
            "instance_id": configured.instance_id or None,
            "address": configured.address or None,
        },
        "sources": [_file(found) for found in configured.sources],
        "rendered": [{**_file(found), "current": found.current} for found in configured.rendered],
        "open": list(configured.left_open),
        "refusals": list(configured.refusals),
        "last_refusal": list(configured.last_refusal),
        "store": store
        and {
            "kind": store.kind,
            "servers": list(store.servers),
            "answers": store.answers if store.asked else None,
            "has_leader": store.has_leader if store.answers else None,
            "leader": store.leader,
            "failure": store.failure or None,
        },
        "member": {
            "url": report.url or None,
            "answers": member.answers,
            "failure": member.failure or None,
            "role": member.role or None,
            "state": member.state or None,
            "replication": member.replication or None,
            "timeline": member.timeline,
            "lag": next((found.lag for found in cluster.members if found.name == configured.name), None),
            "started": member.started or None,
            "pending_restart": member.restart_for is not None if member.answers else None,
            "postgresql": member.postgresql or None,
            "patroni": member.patroni or None,
            "postgresql_alone": report.alone,
        },
        "cluster": {
            "answers": cluster.answers,
            "paused": report.paused,
            "leader": cluster.leader,
            "members": [vars(found) for found in cluster.members],
        },
        "units": {
            name: {"active": unit.active or None, "sub": unit.sub or None, "result": unit.result or None}
            for name, unit in report.units.items()
        },
    }


def _file(found: File) -> dict[str, Any]:
    stamp = found.modified.isoformat(timespec="seconds") if found.modified else None
    return {"path": str(found.path), "present": found.present, "modified": stamp}


def text(report: Report, problems: Sequence[str]) -> str:
    """Return aligned lines without control characters, whatever the names in them hold."""
    configured = report.configured
    lines = [
        *_block("node", [_node(report)]),
        *_block("instance", [configured.instance_id or "unknown"]),
        *_block("node.yml", _files(configured.sources)),
        *_block("rendered", _files(configured.rendered) or ["nothing"]),
        *_block("store", [_store(report)]),
        *_block("member", [_member(report)]),
        *_block("cluster", _cluster(report)),
        *_block("open", configured.left_open),
        *_block("services", _columns([(name, str(unit)) for name, unit in report.units.items()])),
        *_block("problems", problems or ["none"]),
    ]
    return "\n".join(printable(line) for line in lines)


def _block(title: str, lines: Iterable[str]) -> list[str]:
    return [f"{title if number == 0 else '':{WIDTH}}{line}" for number, line in enumerate(lines)]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    return ["  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _node(report: Report) -> str:
    configured = report.configured
    if not configured.name:
        return "unknown"
    origins = {
        "kept": "name kept since the first boot",
        "host name": "name of the host",
        "patroni.yml": "as rendered before",
    }
    origin = origins.get(configured.name_from, f"name from {configured.name_from}")
    return f"{configured.name} of cluster {configured.cluster}, {configured.address} ({origin})"


def _files(found: Sequence[File]) -> list[str]:
    says = {True: "as node.yml asks for", False: "NOT as node.yml asks for", None: ""}
    stamps = [f"{file.modified:%Y-%m-%d %H:%M:%S}" if file.modified else "missing" for file in found]
    return _columns([(str(file.path), stamp, says[file.current]) for file, stamp in zip(found, stamps, strict=True)])


def _store(report: Report) -> str:
    state = report.store
    if state is None:
        return "unknown"
    where = f"{state.kind} at {', '.join(state.servers)}" if state.servers else state.kind
    if not state.asked:
        return f"{where}, which this program cannot ask"
    if not state.answers:
        return f"{where}: no answer ({state.failure})"
    leader = f"leader {state.leader}" if state.leader else "has a leader"
    return f"{where}: answers, {leader if state.has_leader else 'NO LEADER'}"


def _member(report: Report) -> str:
    member = report.member
    if not member.answers:
        return f"no answer of Patroni{f' at {report.url} ({member.failure})' if report.url else ''}"
    return str(member)


def _cluster(report: Report) -> list[str]:
    cluster = report.cluster
    paused = ["MAINTENANCE MODE: no failover"] if report.paused else []
    if not cluster.answers:
        return [*paused, "unknown"]
    return [*paused, *_columns([_row(found) for found in cluster.members])]


def _row(found: Listed) -> tuple[str, ...]:
    timeline = "" if found.timeline is None else f"timeline {found.timeline}"
    lag = "" if found.role in LEADERS else "lag unknown" if found.lag is None else f"lag {found.lag}"
    return found.name, found.role, found.state, found.host, timeline, lag
