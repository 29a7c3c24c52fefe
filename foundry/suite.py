"""What `invoke test` runs: lint and unit tests first; the image, and the tests of the pipeline, once those pass."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foundry import lint, log, run
from foundry.config import Config
from foundry.errors import Cancelled, ConfigError, FoundryError
from foundry.workspace import Workspace

# What a test may need to know of the user's surroundings; run.py keeps the rest out.
_PASSED_ON = ("CI", "NO_COLOR", "FOUNDRY_BUILD", "FOUNDRY_SET", "TMPDIR")


@dataclass(frozen=True)
class Part:
    """One part of the suite, and how it ended: "passed", "failed" or "not run"."""

    name: str
    outcome: str
    seconds: float = 0.0


# Half of the time is waiting: two at once, each file's by one process.
TWO = ("--numprocesses=2", "--dist=loadfile")
# Virtual machines are busy all the time.
CLUSTERS = {
    "container": ("--machine=container", *TWO),
    "vm": ("--machine=vm",),
}

Step = tuple[str, Callable[[], object]]


def test(cfg: Config, workspace: Workspace, *, fast: bool, show: Callable[[str], None], machine: str) -> list[Part]:
    """Run the suite; show is called with each line that pytest prints.

    fast: only the parts that need no machine to be booted. machine: what the nodes of test clusters are; "vm" runs the
    tests that need virtual machines, and only these of clusters.
    Raises ConfigError for another machine, and FoundryError, which names the parts that failed, after all that can
    still tell something have run.
    """
    if machine not in CLUSTERS:
        raise ConfigError(f"--machine: {machine} is not one of {', '.join(CLUSTERS)}")
    cheap: list[Step] = [
        ("lint", lambda: lint.lint(workspace)),
        ("unit tests", lambda: pytest(workspace, workspace.unit_suite, show, "--numprocesses=2")),
    ]
    costly: list[Step] = [
        ("image", lambda: _image(cfg, workspace, show)),
        # Both take the image, and neither what the other has shown; the longer one comes last.
        ("cluster tests", lambda: pytest(workspace, workspace.cluster_suite, show, *CLUSTERS[machine])),
        ("pipeline tests", lambda: pytest(workspace, workspace.pipeline_suite, show, *TWO)),
    ]
    parts = [_run(*step) for step in cheap]
    for name, act in [] if fast else costly:
        base = parts[: len(cheap) + 1]
        whole = all(p.outcome == "passed" for p in base)
        parts.append(_run(name, act) if whole else Part(name, "not run"))
    for part in parts:
        log.info(f"{part.name:<16} {part.outcome:<8}{part.seconds:6.1f} s")
    failed = [p.name for p in parts if p.outcome == "failed"]
    if failed:
        raise FoundryError(f"test: {', '.join(failed)} failed", hint=f"the whole output is in {workspace.logs}")
    return parts


def _run(name: str, act: Callable[[], object]) -> Part:
    begin = time.monotonic()
    try:
        act()
    except Cancelled:
        raise
    except FoundryError as error:
        for text in (
            error.brief,
            error.details,
            error.log and f"log: {error.log}",
            error.hint and f"hint: {error.hint}",
        ):
            if text:
                log.info(f"{name}: {text}")
        return Part(name, "failed", time.monotonic() - begin)
    return Part(name, "passed", time.monotonic() - begin)


def pytest(workspace: Workspace, folder: Path, show: Callable[[str], None], *options: str) -> None:
    """Run the tests of a folder; options: more of pytest's. Raises CommandFailed when one fails, or there is none."""
    run.run(
        [sys.executable, "-m", "pytest", str(folder.relative_to(workspace.root)), *options],
        name=f"pytest-{folder.name}",
        what=f"pytest {folder.name}",
        cwd=workspace.root,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        on_line=show,
    )


def _image(cfg: Config, workspace: Workspace, show: Callable[[str], None]) -> None:
    from foundry import build

    result = build.build_image(cfg, workspace, image=None, verify=True, offline=False)
    for line in result.summary():
        show(line)
