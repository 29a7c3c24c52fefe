"""What became of a run of the tests: suite by suite and test by test, as lines for a person and as kept JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundry import console, files
from foundry.workspace import CPU_TIMES, Workspace

SLOWEST = 10
_GOOD = ("passed", "skipped", "xfailed")


@dataclass(frozen=True)
class Case:
    """One test. outcome: passed, failed, error, skipped, xfailed or xpassed; seconds: its fixtures' time included."""

    name: str
    suite: str
    outcome: str
    seconds: float


@dataclass(frozen=True)
class Part:
    """One suite, and how it ended: "passed", "failed", "not run", or "no tests" where a keyword fits none of its tests.

    cpu: how busy all cores of the host were meanwhile, in percent. reused: whether its cases are those of an earlier
    run, whose result still counts.
    """

    name: str
    outcome: str
    seconds: float = 0.0
    cpu: float | None = None
    cases: tuple[Case, ...] = ()
    reused: bool = False

    @property
    def failed(self) -> list[str]:
        """The names of its tests that did not do what they should."""
        return [case.name for case in self.cases if case.outcome not in _GOOD]


@dataclass(frozen=True)
class Results:
    """A whole run. started: UTC, ISO 8601; options: what it was asked to run, and on what."""

    started: str
    options: Mapping[str, Any]
    parts: tuple[Part, ...]

    def lines(self) -> list[str]:
        """A line for each suite, and the slowest tests of all of them."""
        rows: list[tuple[str, ...]] = [("suite", "outcome", "tests", " seconds", "  CPU", "")]
        for part in self.parts:
            tests = f"{len(part.cases):5}" if part.cases else "    -"
            cpu = "    -" if part.cpu is None else f"{part.cpu:4.0f}%"
            note = "tested by an earlier run" if part.reused else ""
            rows.append((part.name, part.outcome, tests, f"{part.seconds:8.1f}", cpu, note))
        ran = [case for part in self.parts if not part.reused for case in part.cases]
        slowest = sorted(ran, key=lambda case: -case.seconds)[:SLOWEST]
        if not slowest:
            return console.table(rows)
        listed = [(f"{case.seconds:8.1f}", case.suite, case.name) for case in slowest]
        return [*console.table(rows), *console.table([(" seconds", "suite", "slowest tests"), *listed])]

    def keep(self, workspace: Workspace) -> Path:
        """Write all of it below build/test-results/; returns the file."""
        target = workspace.stage("test-results") / workspace.run_id / "results.json"
        suites = []
        for part in self.parts:
            values = {key: value for key, value in asdict(part).items() if key != "cases"}
            suites.append({**values, "tests": len(part.cases)})
        tests = [asdict(case) for part in self.parts for case in part.cases]
        options = dict(self.options)
        files.write_json(target, {"started": self.started, "options": options, "suites": suites, "tests": tests})
        return target


def newest(workspace: Workspace) -> Results | None:
    """The results that were kept last; None where there are none that can be read."""
    kept = sorted(workspace.stage("test-results").glob("*/results.json"))
    value: Any = files.read_json(kept[-1]) if kept else {}
    try:
        cases = [Case(**row) for row in value["tests"]]
        parts = []
        for row in value["suites"]:
            own = tuple(case for case in cases if case.suite == row["name"])
            parts.append(Part(**{k: v for k, v in row.items() if k != "tests"}, cases=own))
        return Results(value["started"], dict(value["options"]), tuple(parts))
    except (TypeError, KeyError):
        return None


def read(path: Path, suite: str) -> tuple[Case, ...]:
    """The tests that tests/outcomes.py has written down; none where pytest did not come that far."""
    return tuple(Case(suite=suite, **row) for row in files.read_json(path) or [])


class Cores:
    """How busy the host's cores are, from when this is made on."""

    def __init__(self) -> None:
        self._before = self._times()

    def busy(self) -> float:
        """Percent of all cores' time that went neither idle nor into waiting for disks."""
        total, idle = (now - then for now, then in zip(self._times(), self._before, strict=True))
        return round(100 * (1 - idle / total), 1) if total else 0.0

    @staticmethod
    def _times() -> tuple[int, int]:
        # user nice system idle iowait irq softirq steal; the guests' time after them is part of the first two.
        numbers = [int(word) for word in CPU_TIMES.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        return sum(numbers), sum(numbers[3:5])
