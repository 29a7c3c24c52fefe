"""What Patroni on this node says of its member and of the cluster.

Source: Patroni 4.1, patroni/api.py (get_postgresql_status, _write_status_response), patroni/utils.py (cluster_as_json).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patroni_node.effective import Endpoint
from patroni_node.rest import Answer, Question

LEADERS = ("leader", "standby_leader")


@dataclass(frozen=True)
class Member:
    """This node's member, by GET /patroni; answers is False where Patroni did not, and failure says why.

    role: primary, replica or standby_leader. replication: of a replica, "streaming" or "in archive recovery".
    started: when PostgreSQL was. restart_for: parameters that wait for a restart of PostgreSQL.
    """

    answers: bool = False
    failure: str = ""
    role: str = ""
    state: str = ""
    replication: str = ""
    timeline: int | None = None
    started: str = ""
    postgresql: str = ""
    patroni: str = ""
    paused: bool = False
    failsafe: bool = False
    watchdog_failed: bool = False
    restart_for: tuple[str, ...] | None = None
    by_archive: bool = False

    @property
    def runs(self) -> bool:
        return self.answers and self.state == "running"

    def __str__(self) -> str:
        words = [self.role, self.replication or self.state]
        words += [f"timeline {self.timeline}"] if self.timeline is not None else []
        words += [f"PostgreSQL {self.postgresql}"] if self.postgresql else []
        words += [f"Patroni {self.patroni}", "RESTART PENDING" if self.restart_for is not None else ""]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Listed:
    """A member as the cluster's list has it; lag in bytes, None of a leader or where it is not known."""

    name: str
    role: str
    state: str
    host: str
    timeline: int | None
    lag: int | None


@dataclass(frozen=True)
class Cluster:
    """The cluster, by GET /cluster, which Patroni asks the store for."""

    answers: bool = False
    failure: str = ""
    paused: bool = False
    members: tuple[Listed, ...] = ()

    @property
    def leader(self) -> str | None:
        return next((found.name for found in self.members if found.role in LEADERS), None)


def questions(patroni: Endpoint) -> list[Question]:
    """Return what is asked about member and cluster."""
    return [patroni.question("/patroni"), patroni.question("/cluster")]


def member(answer: Answer) -> Member:
    """Read the answer to GET /patroni: 200 of a member that runs, 503 of one that does not."""
    said = answer.body
    if not isinstance(said, dict) or not isinstance(said.get("patroni"), dict):
        return Member(failure=_failure(answer))
    waits = said.get("pending_restart_reason")
    return Member(
        answers=True,
        role=_word(said, "role"),
        state=_word(said, "state"),
        replication=_word(said, "replication_state"),
        timeline=_number(said, "timeline"),
        started=_word(said, "postmaster_start_time"),
        postgresql=_version(said.get("server_version")),
        patroni=_word(said["patroni"], "version"),
        paused=said.get("pause") is True,
        failsafe=said.get("failsafe_mode_is_active") is True,
        watchdog_failed=said.get("watchdog_failed") is True,
        restart_for=tuple(sorted(waits)) if isinstance(waits, dict) else () if said.get("pending_restart") else None,
        by_archive=isinstance(said.get("tags"), dict) and said["tags"].get("nostream") is True,
    )


def cluster(answer: Answer) -> Cluster:
    """Read the answer to GET /cluster."""
    said = answer.body
    if answer.code != 200 or not isinstance(said, dict) or not isinstance(said.get("members"), list):
        return Cluster(failure=_failure(answer))
    members = tuple(_listed(found) for found in said["members"] if isinstance(found, dict))
    return Cluster(True, "", said.get("pause") is True, members)


def _listed(found: Mapping[str, Any]) -> Listed:
    name, role, state, host = (_word(found, part) for part in ("name", "role", "state", "host"))
    return Listed(name, role, state, host, _number(found, "timeline"), _number(found, "lag"))


def _word(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _number(found: Mapping[str, Any], name: str) -> int | None:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _version(number: object) -> str:
    return f"{number // 10000}.{number % 10000}" if isinstance(number, int) else ""


def _failure(answer: Answer) -> str:
    return answer.failure or f"HTTP {answer.code}, no answer of Patroni's"
