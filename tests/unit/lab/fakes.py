"""Machines and clusters that only say what they are told to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundry.errors import GuestError
from foundry.lab.cluster import Cluster
from foundry.lab.plan import Plan
from foundry.run import Result


@dataclass
class FakeMachine:
    """reason: why it is dead, or None. answers: a part of a command to what it prints; "" fails.

    asked: what ssh was given. lost: whether ssh is. stuck: whether it cannot be booted.
    """

    reason: str | None = None
    answers: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    ssh_config: Path = Path("/ssh_config")
    lost: bool = False
    stuck: bool = False

    def dead(self) -> str | None:
        return self.reason

    def boot(self) -> None:
        self.told.append("boot")
        if self.stuck:
            raise GuestError("no loop device is left")
        self.reason = None

    def stop(self) -> None:
        self.told.append("stop")

    def collect_logs(self, folder: Path) -> list[Path]:
        self.told.append(f"logs to {folder.name}")
        return []

    def ssh(self, command: str, **_: object) -> Result:
        self.asked.append(command)
        if self.lost:
            raise GuestError("ssh: the connection was lost")
        output = next((text for part, text in self.answers.items() if part in command), "")
        return Result((command,), 0 if output else 1, output, None)


def answer(*members: tuple[str, str, str]) -> str:
    """GET /cluster of members, each a name, a role and a state."""
    listed = [{"name": n, "role": r, "state": s, "host": f"10.129.0.2{n[-1]}"} for n, r, s in members]
    return json.dumps({"members": listed, "scope": "pg-15-cluster"})


def cluster(**machines: FakeMachine) -> Cluster:
    """A cluster of these machines, whose network was never made."""
    made: Any = Cluster.__new__(Cluster)
    made.plan = Plan("lab", "/x.qcow2", nodes=len(machines))
    made.nodes = dict(zip(machines, made.plan.members, strict=True))
    made.machines = machines
    made.store = None
    made._next_wake = 0.0
    found: Cluster = made
    return found
