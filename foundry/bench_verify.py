"""What a verification costs, and how long a node takes until Patroni leads, beside what its kernel takes to start.

The kernel and its initrd are Debian's and take what this host and its emulator take, so they are the peer of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from foundry import build, console, evidence, verify
from foundry.config import Config
from foundry.errors import VerifyError
from foundry.workspace import Workspace

LEADS = "Patroni leads"


@dataclass(frozen=True)
class Figure:
    """One line: seconds, and how many times what the kernel took in the first boot."""

    name: str
    seconds: float
    ratio: float


def measure(settings: Config, workspace: Workspace) -> list[Figure]:
    """Verify the newest image, and tell where the time went. Raises as verify_image does."""
    built = build.verify_image(settings, workspace)
    verdict = built.verdict
    assert verdict is not None
    boots = evidence.load(evidence.path(verify.verdict_path(built.release.main), evidence.BOOT))
    if not boots or any(LEADS not in boot.milestones for boot in boots):
        raise VerifyError("the evidence of this verification does not say when Patroni led")
    return figures(verdict, boots)


def figures(verdict: verify.Verdict, boots: Sequence[evidence.Boot]) -> list[Figure]:
    """The lines of a verdict whose boots are known: the first boot's, and those after the restart."""
    taken = {"kernel and initrd": boots[0].kernel / 1000}
    for boot, title, ready in zip(
        boots, ("first boot", "restart"), (verdict.boot_seconds, verdict.reboot_seconds or 0.0), strict=True
    ):
        taken[f"{title}: {LEADS}"] = boot.milestones[LEADS] / 1000
        taken[f"{title}: it is up"] = ready
        taken[f"{title}: tests"] = sum(o.seconds for o in verdict.outcomes if o.phase == boot.phase)
    taken["verification"] = verdict.seconds
    kernel = taken["kernel and initrd"]
    return [Figure(name, seconds, seconds / kernel) for name, seconds in taken.items()]


def table(found: Sequence[Figure]) -> list[str]:
    """The figures for a person."""
    rows = [("", " seconds", "ratio"), *((f.name, f"{f.seconds:8.1f}", f"{f.ratio:5.1f}") for f in found)]
    return console.table(rows)


def as_json(found: Sequence[Figure]) -> list[dict[str, object]]:
    """The figures as plain values."""
    return [asdict(figure) for figure in found]
