"""A node whose Patroni, store and services answer from tables: for tests of `status` and `restart`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from conftest import MINIMAL, Node

from patroni_node.commands import Ended
from patroni_node.configure import configure
from patroni_node.rest import Answer, Question

URL = "https://10.129.0.21:8008"
CONSUL = "http://127.0.0.1:8500/v1/status/leader"
CLUSTER = "pg-15-cluster"
REFUSED = Answer(failure="connection refused")


def patroni(**more: Any) -> dict[str, Any]:
    """GET /patroni of a leader, with something else in it; None removes."""
    said = {
        "state": "running",
        "role": "primary",
        "timeline": 3,
        "server_version": 150020,
        "postmaster_start_time": "2026-11-24 11:20:33+00:00",
        "patroni": {"version": "4.1.5", "scope": CLUSTER, "name": "pg-srv1"},
        **more,
    }
    return {name: value for name, value in said.items() if value is not None}


def cluster(leader: str | None = "pg-srv1", **more: Any) -> dict[str, Any]:
    """GET /cluster."""
    members = [
        {
            "name": name,
            "role": "leader" if name == leader else "replica",
            "state": "running" if name == leader else "streaming",
            "host": host,
            "timeline": 3,
            **({} if name == leader else {"lag": 0}),
        }
        for name, host in (("pg-srv1", "10.129.0.21"), ("pg-srv2", "10.129.0.22"))
    ]
    return {"members": members, "scope": CLUSTER, **more}


class Live:
    """A configured node, and everything around it; a test changes what it wants."""

    def __init__(self, node: Node, text: str = MINIMAL) -> None:
        self.node = node
        node.write(text)
        configure(node.paths, node.machine)
        self.answers: dict[str, Answer] = {
            f"{URL}/patroni": Answer(200, patroni()),
            f"{URL}/cluster": Answer(200, cluster()),
            f"{URL}/leader": Answer(200),
            CONSUL: Answer(200, "10.129.0.21:8300"),
        }
        self.asked: list[Question] = []
        self.units = {
            "patroni-node": ("active", "exited", "success"),
            "consul": ("active", "running", "success"),
            "patroni": ("active", "running", "success"),
        }
        self.ran: list[str] = []
        self.does: dict[str, Callable[[], Ended]] = {}

    def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        return self.answers.get(question.url, REFUSED)

    def run(self, words: Sequence[str], seconds: float, stop: Callable[[], bool]) -> Ended:
        if words[:2] == ["systemctl", "show"]:
            blocks = []
            for word in words[words.index("--") + 1 :]:
                active, sub, result = self.units[word.removesuffix(".service")]
                blocks.append(f"Id={word}\nActiveState={active}\nSubState={sub}\nResult={result}\n")
            return Ended(0, "\n".join(blocks))
        # patronictl's verb, or systemctl's.
        verb = words[3] if words[0] == "patronictl" else " ".join(words)
        self.ran.append(verb)
        return self.does[verb]()
