"""`./inv test --mutants`: one change at a time, in a copy, and what is told about those that nobody noticed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundry import mutation, run
from foundry.errors import CommandFailed, ConfigError, ToolMissing
from foundry.suite import Wish
from foundry.workspace import Workspace

SOURCE = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("count", "seed", "says"),
    [
        ("many", "", "--mutants: many is not a number"),
        ("", "1", "--mutants:  is not a number"),
        ("-1", "", "--mutants: -1 is not a number"),
        ("0", "", "--mutants: 0 is none at all"),
        ("5", "x", "--seed: x is not a number"),
        ("9" * 10, "", "is not a number"),
    ],
)
def test_numbers_that_are_none_are_refused(count: str, seed: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        mutation.asked(count, seed, Wish())


def test_nothing_else_goes_with_mutants() -> None:
    with pytest.raises(ConfigError, match="only --seed goes with it"):
        mutation.asked("5", "1", Wish(only=("unit",)))


def test_a_seed_is_made_up_where_there_is_none() -> None:
    assert mutation.asked("5", "0", Wish()) == (5, 0)
    assert len({mutation.asked("5", "", Wish())[1] for _ in range(20)}) > 1


def test_only_root_can_make_the_box(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation.os, "geteuid", lambda: 1000)
    with pytest.raises(ToolMissing):
        mutation.hunt(workspace, 1, 1)


def mutant(code: str, *tests: str) -> dict[str, Any]:
    return {"file": "foundry/x.py", "line": 2, "operator": "Minus", "code": code, "tests": list(tests), "seconds": 2.0}


class Python:
    """What is run in the box, and how it ends; the sample is what a test puts into mutants."""

    def __init__(self) -> None:
        self.mutants: list[dict[str, Any]] = []
        self.ends: dict[str, Callable[[], None]] = {}
        self.ran: list[tuple[str, str, float | None]] = []
        self.stamps: list[float] = []
        self.copies: set[Path] = set()

    def run(self, box: mutation.Box, words: list[Any], name: str, *, tools: Any = None, seconds: Any = None) -> None:
        self.copies.add(box.copy)
        source = box.copy / "foundry/x.py"
        self.ran.append((name, source.read_text(), seconds))
        self.stamps.append(source.stat().st_mtime)
        if name == "pytest-reach":
            (box.copy / ".coverage").touch()
            (box.copy / "outcomes.json").touch()
        if name == "mutants":
            (box.copy / "mutants.json").write_text(json.dumps(self.mutants))
        self.ends.get(name, lambda: None)()


@pytest.fixture
def python(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Python:
    found = Python()
    for name in (
        "foundry/x.py",
        ".git/HEAD",
        ".venv/bin/python",
        "build/pool/a",
        "tests/unit/__pycache__/b",
        ".ci/run",
    ):
        (workspace.root / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / name).write_text(SOURCE)
    monkeypatch.setattr(mutation.os, "geteuid", lambda: 0)
    monkeypatch.setattr(run, "find", lambda *_: None)
    monkeypatch.setattr(mutation, "_tools", lambda _: workspace.build / "tools")
    monkeypatch.setattr(mutation.Box, "run", lambda box, *args, **options: found.run(box, *args, **options))
    return found


def failing() -> None:
    raise CommandFailed("exited 1")


def test_each_mutant_is_tried_alone_and_the_project_stays_as_it_is(workspace: Workspace, python: Python) -> None:
    python.mutants = [mutant("one", "t1"), mutant("two"), mutant("three", "t1", "t2")]
    python.ends["pytest-mutant-1"] = failing
    report = mutation.hunt(workspace, 3, 7)
    assert python.ran[2:] == [("pytest-mutant-1", "one", 70.0), ("pytest-mutant-3", "three", 70.0)]
    assert len(set(python.stamps[1:])) == 3, "Python may take one's compiled code for another's"
    assert [(r.outcome, r.tests) for r in report.results] == [("noticed", 1), ("survived", 0), ("survived", 2)]
    assert (workspace.root / "foundry/x.py").read_text() == SOURCE
    assert not any(copy.parent.exists() for copy in python.copies)
    lines = report.summary()
    assert "survived  foundry/x.py:2  Minus: no test reaches it" in lines
    assert "survived  foundry/x.py:2  Minus: 2 tests ran it" in lines
    assert "-    return a + b" in lines and "+three" in lines
    assert lines[-2:] == [
        "mutants   3 with --seed 7: 1 noticed, 0 timed out, 2 survived (1 where no test comes)",
        "noticed   33.3 %",
    ]
    kept = json.loads((workspace.stage("mutants") / workspace.run_id / "results.json").read_text())
    assert (kept["seed"], kept["percent"], len(kept["results"])) == (7, pytest.approx(33.3, abs=0.1), 3)


def test_one_that_makes_the_tests_hang_is_told_apart(
    workspace: Workspace, python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(mutation.time, "monotonic", lambda: now[0])

    def hang() -> None:
        now[0] += 100.0
        failing()

    python.mutants = [mutant("one", "t1"), mutant("two", "t1")]
    python.ends.update({"pytest-mutant-1": hang, "pytest-mutant-2": failing})
    report = mutation.hunt(workspace, 2, 1)
    assert [r.outcome for r in report.results] == ["timed out", "noticed"]
    assert report.percent == 100


def test_the_same_sources_are_looked_through_once(workspace: Workspace, python: Python) -> None:
    python.mutants = [mutant("one")]
    for _ in range(2):
        mutation.hunt(workspace, 1, 1)
    assert [name for name, _, _ in python.ran] == ["pytest-reach", "mutants", "mutants"]
    os.utime(workspace.root / "foundry/x.py", (1, 1))
    (workspace.root / "foundry/x.py").write_text("other")
    mutation.hunt(workspace, 1, 1)
    assert [name for name, _, _ in python.ran][3:] == ["pytest-reach", "mutants"]


def test_unit_tests_that_fail_by_themselves_notice_nothing(workspace: Workspace, python: Python) -> None:
    python.ends["pytest-reach"] = failing
    with pytest.raises(CommandFailed) as caught:
        mutation.hunt(workspace, 1, 1)
    assert "have to pass" in str(caught.value.hint)
    assert not any(copy.parent.exists() for copy in python.copies)


def test_only_sources_are_copied(workspace: Workspace, python: Python, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def sample(box: mutation.Box, *_: object) -> list[dict[str, Any]]:
        seen.append({str(p.relative_to(box.copy)) for p in box.copy.rglob("*") if p.is_file()})
        return []

    monkeypatch.setattr(mutation, "_sample", sample)
    mutation.hunt(workspace, 1, 1)
    assert seen == [{"foundry/x.py", ".ci/run"}]


def test_what_a_mutant_sees_of_this_host(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(run, "run", lambda words, **options: asked.append((list(map(str, words)), options)))
    copy = Path("/project/build/work/copy")
    mutation.Box(workspace, copy).run(["-m", "pytest"], "name", tools=Path("/tools"), seconds=3.0)
    ((words, options),) = asked
    assert words[0] == "bwrap" and "--unshare-pid" in words and "--die-with-parent" in words
    writable = [words[n + 1] for n, word in enumerate(words) if word in ("--bind", "--tmpfs")]
    assert writable == ["/tmp", str(copy)]
    assert options["timeout"] == 3.0 and options["env"] == {"PYTHONPATH": "/tools"}
