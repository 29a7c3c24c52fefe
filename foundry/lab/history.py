"""What a writer saw of a cluster, read back from its file: operations of clients, probes of members.

An operation has one of three outcomes:

- `ok`: the server was ready for the next statement after this one, thus after its commit.
- `fail`: it is certain that the value was not written: nothing was sent, or the server answered with an ERROR.
- `unknown`: anything else: the answer did not come, the connection broke, a FATAL came (which may reach a transaction
  that is committed already and waits for its standby), the writer itself was ended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foundry.errors import FoundryError

VALUES = "foundry_history"
"""The table that clients append to."""

Outcome = Literal["ok", "fail", "unknown"]
Answer = Literal["accepted", "refused", "silent"]


@dataclass(frozen=True, order=True)
class Value:
    """What one operation writes, once."""

    client: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.client}/{self.sequence}"


@dataclass(frozen=True)
class Write:
    """A write that a member took. It was committed at some moment between begin and end.

    timeline: the member's own. position: a byte of its WAL before the commit's record, and after all that was
    acknowledged before begin.
    """

    member: str
    begin: float
    end: float
    timeline: int
    position: int


@dataclass(frozen=True)
class Operation:
    """A client's attempt to write a value. end: infinite where the history has none. written: of an `ok` one."""

    value: Value
    begin: float
    end: float
    outcome: Outcome
    code: str | None = None
    written: Write | None = None


@dataclass(frozen=True)
class Probe:
    """A sampler's question whether a member takes writes. written: of an accepted one."""

    member: str
    begin: float
    end: float
    answer: Answer
    code: str | None = None
    written: Write | None = None


@dataclass(frozen=True)
class History:
    """One run of the writer. Times are time.monotonic(); wall: what the host's clock said at begin."""

    run: str
    begin: float
    end: float
    members: Sequence[str]
    operations: Sequence[Operation]
    probes: Sequence[Probe]
    wall: float = 0.0

    def acknowledged(self) -> list[Operation]:
        """The operations that were, in the order of their acknowledgement."""
        return sorted((o for o in self.operations if o.outcome == "ok"), key=lambda o: o.end)

    def writes(self) -> list[Write]:
        """Every write that a member is known to have taken, of clients and samplers, by its begin."""
        found = [o.written for o in self.operations] + [p.written for p in self.probes]
        return sorted((w for w in found if w), key=lambda w: w.begin)


def query(run: str) -> str:
    """The SQL statement for all values of a run that a member has; values() reads what `psql -At` prints for it."""
    return f"SELECT client, sequence FROM {VALUES} WHERE run = '{run}'"  # noqa: S608 - hexadecimal digits of our own


def values(text: str) -> list[Value]:
    """The values in the output of `psql -At`."""
    return [Value(*map(int, line.split("|"))) for line in text.splitlines() if line.strip()]


def load(path: Path) -> History:
    """Read a writer's file. The last line may be torn, and the end missing, if the writer was killed.

    Raises FoundryError when the file is no history.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoundryError(f"{path} is no writer's history: {error}", hint="has the writer started?") from error


def parse(text: str) -> History:
    """The history in a writer's lines. Raises ValueError, KeyError or TypeError where they are none."""
    lines = list(_lines(text))
    if not lines or lines[0]["kind"] != "begin":
        raise ValueError("it does not begin with a begin")
    begun: dict[Value, float] = {}
    operations: dict[Value, Operation] = {}
    probes: list[Probe] = []
    last = lines[0]["at"]
    for line in lines[1:]:
        kind = line["kind"]
        last = max(last, line["end"] if kind == "probe" else line["at"])
        if kind == "probe":
            answer = line["outcome"]
            written = _write(line, line["begin"], line["end"]) if answer == "accepted" else None
            probes.append(Probe(line["member"], line["begin"], line["end"], answer, line.get("code"), written))
        elif kind == "invoke":
            begun[_value(line)] = line["at"]
        elif kind in ("ok", "fail", "unknown"):
            value, end = _value(line), line["at"]
            begin = begun.pop(value)
            written = _write(line, begin, end) if kind == "ok" else None
            operations[value] = Operation(value, begin, end, kind, line.get("code"), written)
        elif kind != "end":
            raise ValueError(f"unknown kind {kind!r}")
    for value, begin in begun.items():
        operations[value] = Operation(value, begin, math.inf, "unknown")
    members = list(dict.fromkeys(member for member, _ in lines[0]["members"]))
    in_order = sorted(operations.values(), key=lambda o: o.begin)
    return History(lines[0]["run"], lines[0]["at"], last, members, in_order, probes, lines[0]["wall"])


def _lines(text: str) -> Iterator[dict[str, Any]]:
    whole = text.split("\n")
    # What follows the last line break was being written when the writer ended.
    for line in whole[:-1]:
        yield json.loads(line)


def _value(line: dict[str, Any]) -> Value:
    return Value(line["client"], line["sequence"])


def _write(line: dict[str, Any], begin: float, end: float) -> Write:
    return Write(line["member"], begin, end, line["timeline"], line["position"])
