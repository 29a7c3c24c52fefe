"""Small histories, made in one line each: what a writer would have seen of a cluster that is right or wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

from foundry.lab.history import Answer, History, Operation, Outcome, Probe, Value, Write

MEMBERS = ("a", "b", "c")


def op(
    client: int,
    sequence: int,
    begin: float,
    outcome: Outcome = "ok",
    *,
    by: str = "a",
    timeline: int = 1,
    position: int | None = None,
    lasts: float = 0.01,
) -> Operation:
    """An operation that took lasts seconds; its WAL position grows by 1000 bytes a second unless it is given."""
    value, end = Value(client, sequence), begin + lasts
    if outcome != "ok":
        return Operation(value, begin, end, outcome, code="08006")
    at = int(begin * 1000) if position is None else position
    return Operation(value, begin, end, "ok", written=Write(by, begin, end, timeline, at))


def probe(by: str, begin: float, answer: Answer = "refused", *, timeline: int = 1, lasts: float = 0.005) -> Probe:
    end = begin + lasts
    written = Write(by, begin, end, timeline, int(begin * 1000)) if answer == "accepted" else None
    return Probe(by, begin, end, answer, None if written else "25006", written)


def history(
    operations: Sequence[Operation],
    probes: Sequence[Probe] | None = None,
    *,
    seconds: float = 10.0,
) -> History:
    """A history from 0 to seconds. probes: added to one a second of each member, which all refuse."""
    asked = [probe(member, float(n)) for member in MEMBERS for n in range(math.ceil(seconds))]
    return History("r1", 0.0, seconds, MEMBERS, operations, [*asked, *(probes or ())])


def steady(count: int = 9) -> list[Operation]:
    """Values 1/1, 1/2 … a second after each other, all acknowledged by a on timeline 1."""
    return [op(1, n, float(n)) for n in range(1, count + 1)]


def failover() -> list[Operation]:
    """a leads until 4.0, b from 6.0 on; two attempts in between fail."""
    before = [op(1, n, float(n)) for n in range(1, 5)]
    between = [op(1, 5, 5.0, "fail"), op(1, 6, 5.5, "fail")]
    return [*before, *between, *(op(1, n, float(n - 1), by="b", timeline=2) for n in range(7, 11))]


def present(operations: Sequence[Operation]) -> list[Value]:
    """What the table of a cluster that lost nothing holds."""
    return [o.value for o in operations if o.outcome == "ok"]
