"""What builds cost, as tables: of one run, and of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from foundry import console, files, log

# What the project promises, on 2 cores without KVM.
COLD_SECONDS = 150.0
WARM_SECONDS = 60.0
UNCHANGED_SECONDS = 5.0
IMAGE_BYTES = 240_000_000
PEER = "plain mmdebstrap"


@dataclass(frozen=True)
class Phase:
    """One measured way: its name, wall seconds, the limit that is promised for it, and the stages within.

    Stages run side by side, so their seconds may add up to more than the phase's.
    """

    name: str
    seconds: float
    limit: float | None = None
    stages: Sequence[log.StageRecord] = ()


@dataclass(frozen=True)
class Benchmark:
    """What one run measured. size: of the image's main file, in bytes. report: the JSON file, once written."""

    image: str
    started: str
    phases: Sequence[Phase]
    size: int
    machine: dict[str, str]
    report: Path | None = None

    def summary(self) -> list[str]:
        """The table, the machine's description, and where the numbers are kept."""
        rows: list[Sequence[str]] = [("", " seconds", "ratio", "limit", "")]
        peer = self.of(PEER).seconds
        for phase in self.phases:
            within = phase.limit is None or phase.seconds <= phase.limit
            limit = f"{phase.limit:.0f} s" if phase.limit else "-"
            rows.append((phase.name, *_numbers(phase.seconds, peer), limit, "" if within else "OVER"))
            rows += [(f"  {s.name}", *_numbers(s.seconds, peer), "", "") for s in _built(phase)]
        over = "" if self.size <= IMAGE_BYTES else "OVER"
        rows.append(("image", files.human(self.size), "", files.human(IMAGE_BYTES), over))
        machine = [("", ""), *self.machine.items()]
        written = [f"written  {self.report}"] if self.report else []
        return [*console.table(rows), *console.table(machine), "", *written]

    def of(self, phase: str, stage: str | None = None) -> Phase | log.StageRecord:
        """A phase by its name, or a stage within it. Raises StopIteration where this run has none."""
        found = next(p for p in self.phases if p.name == phase)
        return found if stage is None else next(s for s in found.stages if s.name == stage)

    def as_json(self) -> dict[str, object]:
        """All of it as plain values."""
        values = {key: value for key, value in asdict(self).items() if key != "report"}
        return {**values, "peer": PEER, "size_limit": IMAGE_BYTES}


def table_of_runs(found: Sequence[Benchmark]) -> list[str]:
    """Of each line of several runs: the median's seconds, and the median, least and most of the ratios to the peer."""
    rows: list[Sequence[str]] = [("", " seconds", "ratio", "  min", "  max")]
    for phase in found[0].phases:
        rows.append(_over_runs(found, phase.name))
        rows += [_over_runs(found, phase.name, stage.name) for stage in _built(phase)]
    sizes = [run.size for run in found]
    machine = [("", ""), *found[-1].machine.items()]
    written = [f"written  {run.report}" for run in found if run.report]
    return [
        *console.table(rows),
        f"image {files.human(int(median(sizes)))}, {len(found)} runs",
        *console.table(machine),
        "",
        *written,
    ]


def _over_runs(found: Sequence[Benchmark], phase: str, stage: str | None = None) -> Sequence[str]:
    taken = [run.of(phase, stage).seconds for run in found]
    ratios = [one / run.of(PEER).seconds for one, run in zip(taken, found, strict=True)]
    name = phase if stage is None else f"  {stage}"
    return (name, f"{median(taken):8.1f}", *(f"{value:5.2f}" for value in (median(ratios), min(ratios), max(ratios))))


def _built(phase: Phase) -> list[log.StageRecord]:
    return [s for s in phase.stages if s.outcome != "reused" and s.name != phase.name]


def _numbers(seconds: float, peer: float) -> tuple[str, str]:
    return f"{seconds:8.1f}", f"{seconds / peer:5.2f}" if peer else "-"
