"""The writer's lines, read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from foundry.errors import FoundryError
from foundry.lab import history
from foundry.lab.history import Operation, Probe, Value, Write

BEGIN = {"kind": "begin", "at": 1.0, "run": "r1", "members": [["a", "10.0.0.1"], ["b", "10.0.0.2"]], "wall": 9.0}
OK = {"kind": "ok", "at": 2.5, "client": 1, "sequence": 1, "member": "a", "timeline": 3, "position": 77}
INVOKE = {"kind": "invoke", "at": 2.0, "client": 1, "sequence": 1}


def text(*lines: dict[str, object]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_an_acknowledged_value_has_its_interval_and_place() -> None:
    found = history.parse(text(BEGIN, INVOKE, OK, {"kind": "end", "at": 3.0}))
    written = Write("a", 2.0, 2.5, 3, 77)
    assert found.operations == [Operation(Value(1, 1), 2.0, 2.5, "ok", written=written)]
    assert (found.run, found.begin, found.end, found.wall, found.members) == ("r1", 1.0, 3.0, 9.0, ["a", "b"])
    assert found.writes() == [written]


@pytest.mark.parametrize("outcome", ["fail", "unknown"])
def test_others_have_a_code_and_no_place(outcome: str) -> None:
    line = {"kind": outcome, "at": 2.5, "client": 1, "sequence": 1, "code": "57P01", "why": "shut down"}
    (found,) = history.parse(text(BEGIN, INVOKE, line)).operations
    assert (found.outcome, found.code, found.written) == (outcome, "57P01", None)


def test_what_was_never_answered_is_unknown() -> None:
    (found,) = history.parse(text(BEGIN, INVOKE)).operations
    assert (found.outcome, found.end) == ("unknown", math.inf)


def test_a_torn_last_line_is_left_out() -> None:
    found = history.parse(text(BEGIN, INVOKE) + json.dumps(OK)[:20])
    assert found.operations[0].outcome == "unknown"
    assert found.end == 2.0


def test_probes() -> None:
    lines = [
        {"kind": "probe", "begin": 2.0, "end": 2.1, "member": "a", "outcome": "accepted", "timeline": 1, "position": 5},
        {"kind": "probe", "begin": 2.0, "end": 2.2, "member": "b", "outcome": "refused", "code": "25006"},
    ]
    found = history.parse(text(BEGIN, *lines))
    assert found.probes == [
        Probe("a", 2.0, 2.1, "accepted", None, Write("a", 2.0, 2.1, 1, 5)),
        Probe("b", 2.0, 2.2, "refused", "25006"),
    ]
    assert found.end == 2.2


def test_a_member_with_two_addresses_is_one_member() -> None:
    both = {**BEGIN, "members": [["a", "10.0.0.1"], ["a", "10.0.0.9"]]}
    assert history.parse(text(both)).members == ["a"]


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "nothing of the kind\n",
        text(INVOKE),
        text(BEGIN, OK),
        text(BEGIN, INVOKE, {"kind": "maybe", "at": 3.0, "client": 1, "sequence": 1}),
        text(BEGIN, {"kind": "invoke", "at": 2.0}),
        text(BEGIN, INVOKE, OK, OK),
    ],
)
def test_a_broken_history_is_refused(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(broken)
    with pytest.raises(FoundryError, match=r"history\.jsonl is no writer's history"):
        history.load(path)


def test_a_missing_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="is no writer's history"):
        history.load(tmp_path / "history.jsonl")


def test_rows_of_psql() -> None:
    assert history.values("1|2\n1|2\n10|33\n") == [Value(1, 2), Value(1, 2), Value(10, 33)]
    assert history.values("") == []
    assert "WHERE run = 'ab12'" in history.query("ab12")
