"""What `invoke test` runs: lint and unit tests first; the image, and the tests of the pipeline, once those pass."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from foundry import config, image, lint, log, results, run, verify
from foundry.config import Config
from foundry.errors import Cancelled, ConfigError, FoundryError
from foundry.results import Case, Part, Results
from foundry.workspace import Workspace

# What a test may need to know of the user's surroundings; run.py keeps the rest out.
_PASSED_ON = ("CI", "NO_COLOR", "FOUNDRY_BUILD", "FOUNDRY_SET", "TMPDIR")

CHEAP = ("lint", "unit")
# Both take the image, and neither what the other has shown; the longer one comes last.
COSTLY = ("image", "cluster", "pipeline")
SUITES = (*CHEAP, *COSTLY)
# Each of them has to pass before what comes after it is worth its time.
GROUND = (*CHEAP, "image")
# Those whose tests pytest chooses from: all of the image's decide on its verdict.
DIVISIBLE = ("unit", "cluster", "pipeline")

# Half of the time is waiting: two at once, each file's by one process.
TWO = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
# Virtual machines are busy all the time.
CLUSTERS = {
    "container": ("--machine=container", *TWO),
    "vm": ("--machine=vm",),
}


@dataclass(frozen=True)
class Wish:
    """Which tests to run.

    fast: only the suites that need no machine to be booted. only: names of suites (may hold commas). keyword: pytest's
    expression; then the suites are those that it can choose from. last_failed: the tests that failed in the results
    that were kept last, on the machine of these. machine: what the nodes of test clusters are; "vm" runs the tests that
    need virtual machines, and only these of clusters.
    """

    fast: bool = False
    only: tuple[str, ...] = ()
    keyword: str = ""
    last_failed: bool = False
    machine: str = "container"

    def suites(self) -> list[str]:
        """The suites to choose from, in their order. Raises ConfigError for a wish that makes no sense."""
        if self.machine not in CLUSTERS:
            raise ConfigError(f"--machine: {self.machine} is not one of {', '.join(CLUSTERS)}")
        named = [name for words in self.only for name in words.split(",")]
        for name in named:
            if name not in SUITES:
                raise ConfigError(f"--only: {name} is not one of {', '.join(SUITES)}")
            if self.keyword and name not in DIVISIBLE:
                raise ConfigError(f"-k chooses among the tests of {', '.join(DIVISIBLE)}; {name} runs as a whole")
            if self.fast and name not in CHEAP:
                raise ConfigError(f"--fast leaves {name} out, and --only asks for it")
        allowed = named or (CHEAP if self.fast else SUITES)
        return [name for name in SUITES if name in allowed and (not self.keyword or name in DIVISIBLE)]


def test(cfg: Config, workspace: Workspace, wish: Wish, show: Callable[[str], None]) -> Results:
    """Run the suites, keep the results, and tell them; show is called with each line that pytest prints.

    The results have no parts where nothing had failed last time.
    Raises ConfigError for a wish that makes no sense, and FoundryError, which names the suites that failed, after all
    that can still tell something have run.
    """
    chosen: dict[str, tuple[str, ...]] = dict.fromkeys(wish.suites(), ())
    if wish.last_failed:
        before = _kept(workspace)
        wish = replace(wish, machine=before.options.get("machine", wish.machine))
        again = {part.name: part for part in before.parts if part.outcome == "failed"}
        # One that failed as a whole has no test to begin with.
        chosen = {name: tuple(again[name].failed) for name in chosen if name in again}
    started = datetime.now(UTC)
    parts: list[Part] = []
    for name, tests in chosen.items():
        whole = all(p.outcome in ("passed", "no tests") for p in parts if p.name in GROUND)
        if name in COSTLY and not whole:
            parts.append(Part(name, "not run"))
        else:
            parts.append(_run(_Step(cfg, workspace, wish, show, name, tests)))
    found = Results(started.isoformat(timespec="seconds"), asdict(wish), tuple(parts))
    if parts:
        kept = found.keep(workspace)
        for line in [*found.lines(), f"kept in {kept}"]:
            log.info(line)
    failed = [p.name for p in parts if p.outcome == "failed"]
    if failed:
        raise FoundryError(f"test: {', '.join(failed)} failed", hint=f"the whole output is in {workspace.logs}")
    if parts and all(p.outcome == "no tests" for p in parts):
        raise FoundryError(f"test: no test of {', '.join(chosen)} fits -k {wish.keyword}")
    return found


def _kept(workspace: Workspace) -> Results:
    found = results.newest(workspace)
    if found is None:
        raise FoundryError("--last-failed: no results are kept", hint="`./inv test` keeps them")
    return found


@dataclass(frozen=True)
class _Step:
    """One suite to be run. tests: only these of it, where there are any."""

    cfg: Config
    workspace: Workspace
    wish: Wish
    show: Callable[[str], None]
    name: str
    tests: tuple[str, ...]

    def act(self) -> None:
        """Run it. Raises a FoundryError when it fails."""
        if self.name == "lint":
            lint.lint(self.workspace)
        elif self.name == "image":
            _image(self.cfg, self.workspace, self.show)
        else:
            folder, options = {
                "unit": (self.workspace.unit_suite, ("--numprocesses=2",)),
                "cluster": (self.workspace.cluster_suite, CLUSTERS[self.wish.machine]),
                "pipeline": (self.workspace.pipeline_suite, TWO),
            }[self.name]
            keyword = (f"-k={self.wish.keyword}",) if self.wish.keyword else ()
            pytest(self.workspace, folder, self.show, *options, *keyword, tests=self.tests)

    def cases(self, started: datetime) -> tuple[tuple[Case, ...], bool]:
        """What became of its tests, and whether an earlier run than the one that began at started has run them."""
        if self.name == "lint":
            return (), False
        if self.name != "image":
            return results.read(_written(self.workspace, self.name), self.name), False
        try:
            main = image.newest(self.workspace, config.pick_image(self.cfg, None)).main
        except FoundryError:
            return (), False
        verdict = verify.load(verify.verdict_path(main))
        if verdict is None:
            return (), False
        reused = datetime.fromisoformat(verdict.started) < started.replace(microsecond=0)
        return tuple(Case(o.name, "image", o.outcome, o.seconds) for o in verdict.outcomes), reused


def _run(step: _Step) -> Part:
    begin, started, cores = time.monotonic(), datetime.now(UTC), results.Cores()
    try:
        step.act()
        outcome = "passed"
    except Cancelled:
        raise
    except FoundryError as error:
        outcome = "failed"
        for text in (
            error.brief,
            error.details,
            error.log and f"log: {error.log}",
            error.hint and f"hint: {error.hint}",
        ):
            if text:
                log.info(f"{step.name}: {text}")
    seconds, busy = round(time.monotonic() - begin, 1), cores.busy()
    cases, reused = step.cases(started)
    if reused and outcome == "failed":
        # It did not come to the tests, and an older verdict tells nothing about it.
        cases, reused = (), False
    if step.wish.keyword and outcome == "passed" and not cases:
        outcome = "no tests"
    return Part(step.name, outcome, seconds, busy, cases, reused)


def pytest(
    workspace: Workspace, folder: Path, show: Callable[[str], None], *options: str, tests: tuple[str, ...] = ()
) -> None:
    """Run the tests of a folder, or only the named ones of it; options: more of pytest's.

    Raises CommandFailed when one fails, and when there is none though nothing was to choose by keyword.
    """
    chosen = tests or (str(folder.relative_to(workspace.root)),)
    kept = ("-p", "tests.outcomes", f"--results={_written(workspace, folder.name)}")
    run.run(
        [sys.executable, "-m", "pytest", *chosen, *options, *kept],
        name=f"pytest-{folder.name}",
        what=f"pytest {folder.name}",
        cwd=workspace.root,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        on_line=show,
    )


def _written(workspace: Workspace, name: str) -> Path:
    return workspace.logs / f"tests-{name}.json"


def _image(cfg: Config, workspace: Workspace, show: Callable[[str], None]) -> None:
    from foundry import build

    result = build.build_image(cfg, workspace, image=None, verify=True, offline=False)
    for line in result.summary():
        show(line)
