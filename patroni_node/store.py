"""Does the store answer, and has it a leader? Without one Patroni can neither elect nor confirm a primary.

Sources: Consul's HTTP API, "Status", GET /v1/status/leader; etcd 3.4's manual, "Monitoring etcd", GET /health.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patroni_node.effective import Store
from patroni_node.rest import Answer, Question

PATHS = {"Consul": "/v1/status/leader", "etcd": "/health"}


@dataclass(frozen=True)
class StoreState:
    """What the store said.

    servers: their URLs. leader: of Consul, its address. failure: why nobody answered. asked: False where this program
    does not know how to.
    """

    kind: str
    servers: tuple[str, ...] = ()
    asked: bool = False
    answers: bool = False
    has_leader: bool = False
    leader: str | None = None
    failure: str = ""


def questions(store: Store) -> list[Question]:
    """Return what is asked, of each server."""
    return [server.question(PATHS[store.kind]) for server in store.servers]


def state(store: Store, answers: Sequence[Answer]) -> StoreState:
    """Read the answers to `questions`."""
    servers = tuple(server.url for server in store.servers)
    if not servers:
        return StoreState(store.kind)
    if store.kind == "Consul":
        return _consul(servers, answers[0])
    heard = [answer for answer in answers if isinstance(answer.body, dict) and "health" in answer.body]
    # "true", in quotes: health of a server that has no leader is "false" (etcdhttp/metrics.go, checkHealth).
    healthy = any(str(answer.body["health"]).lower() == "true" for answer in heard)
    return StoreState(store.kind, servers, True, bool(heard), healthy, None, "" if heard else _failure(answers))


def _consul(servers: tuple[str, ...], answer: Answer) -> StoreState:
    if answer.code == 200 and isinstance(answer.body, str):
        return StoreState("Consul", servers, True, True, bool(answer.body), answer.body or None)
    if answer.code == 500:
        # "No cluster leader", of an agent that knows no server.
        return StoreState("Consul", servers, True, True)
    return StoreState("Consul", servers, True, failure=_failure([answer]))


def _failure(answers: Sequence[Answer]) -> str:
    said = [a.failure or (f"HTTP {a.code}, no answer that is understood" if a.code else "") for a in answers]
    return ", ".join(dict.fromkeys(word for word in said if word))
