"""How much the unit tests notice: small changes of our own code, one at a time, and what the tests say to each.

tests/mutants.py draws the sample; this gives it what it needs, runs the tests in a copy of the project, and reports.
"""

from __future__ import annotations

import difflib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foundry import files, log, run
from foundry.errors import CommandFailed, ConfigError, FoundryError, ToolMissing
from foundry.suite import Wish
from foundry.workspace import Workspace

NOTICED, SURVIVED, TIMED_OUT = "noticed", "survived", "timed out"
# What a run may take: to begin at all, and for each second that its tests took when nothing was changed.
START_SECONDS = 60.0
TIMES = 5.0
_MEMORY = 4 * 2**30
_SPACE = 2 * 2**30


@dataclass(frozen=True)
class Result:
    """What became of one mutant: noticed, survived or timed out. tests: how many may notice it; 0 where none comes."""

    file: str
    line: int
    operator: str
    outcome: str
    tests: int
    seconds: float
    diff: str


@dataclass(frozen=True)
class Report:
    """All mutants of a sample that were tried. Those that made the tests hang count as noticed."""

    seed: int
    started: str
    results: tuple[Result, ...]

    @property
    def percent(self) -> float:
        """How many of them do not survive, in percent."""
        return 100 * sum(r.outcome != SURVIVED for r in self.results) / max(1, len(self.results))

    def summary(self) -> list[str]:
        """The survivors with their changes, and the counts."""
        lines = []
        for result in (r for r in self.results if r.outcome == SURVIVED):
            why = f"{result.tests} tests ran it" if result.tests else "no test reaches it"
            lines += [f"survived  {result.file}:{result.line}  {result.operator}: {why}", *result.diff.splitlines(), ""]
        counts = Counter(r.outcome for r in self.results)
        unreached = sum(r.outcome == SURVIVED and not r.tests for r in self.results)
        said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in (NOTICED, TIMED_OUT, SURVIVED))
        return [
            *lines,
            f"mutants   {len(self.results)} with --seed {self.seed}: {said} ({unreached} where no test comes)",
            f"noticed   {self.percent:.1f} %",
        ]


def asked(count: str, seed: str, wish: Wish) -> tuple[int, int]:
    """--mutants and --seed as numbers; a seed is made up where there is none. Raises ConfigError.

    wish: what else was asked for, which has to be nothing.
    """
    if wish != Wish():
        raise ConfigError("--mutants runs the unit tests in its own way: only --seed goes with it")
    for option, text in (("--mutants", count), ("--seed", seed or "0")):
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise ConfigError(f"{option}: {text} is not a number")
    if int(count) == 0:
        raise ConfigError("--mutants: 0 is none at all")
    return int(count), int(seed) if seed else secrets.randbelow(10**6)


def hunt(workspace: Workspace, count: int, seed: int) -> Report:
    """Try count mutants, chosen by chance: the same ones for a seed as long as the code is the same.

    Which test runs which line is found out once for each state of the sources. Results are kept in build/mutants/.
    Raises CommandFailed when the unit tests fail as they are, and FetchError when what this needs cannot be fetched.
    """
    if os.geteuid() != 0:
        raise ToolMissing("mutants are run in a box that root alone can make", hint="sudo ./inv …")
    run.find("bwrap", "bubblewrap")
    tools = _tools(workspace)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    kept = workspace.stage("mutants") / workspace.run_id / "results.json"
    report = Report(seed, started, ())
    with _copy(workspace.root) as copy:
        box = Box(workspace, copy)
        mutants = _sample(box, tools, _reach(box, tools), count, seed)
        for number, mutant in enumerate(mutants, 1):
            result = _try(box, mutant, number)
            log.info(f"{number} of {len(mutants)}: {result.outcome}  {result.file}:{result.line}  {result.operator}")
            report = Report(seed, started, (*report.results, result))
            files.write_json(kept, {**asdict(report), "percent": report.percent})
    return report


@dataclass(frozen=True)
class Box:
    """A copy of the project, and nothing else of this host that a mutant could change or end."""

    workspace: Workspace
    copy: Path

    def run(
        self, words: Sequence[str | Path], name: str, *, tools: Path | None = None, seconds: float | None = None
    ) -> run.Result:
        """Run Python with these words in the copy; tools: a folder with more packages. Raises CommandFailed."""
        shown = ["bwrap", "--die-with-parent", "--unshare-pid", "--cap-add", "ALL", "--ro-bind", "/", "/"]
        shown += ["--dev-bind", "/dev", "/dev", "--proc", "/proc", "--size", str(_SPACE), "--tmpfs", "/tmp"]  # noqa: S108 - the box's own
        for path in (self.workspace.root, *([tools] if tools else [])):
            shown += ["--ro-bind", str(path), str(path)]
        shown += ["--bind", str(self.copy), str(self.copy), "--chdir", str(self.copy), "--"]
        env = {"PYTHONPATH": str(tools)} if tools else {}
        bounds = ["prlimit", f"--as={_MEMORY}", "--core=0", "--"]
        return run.run([*shown, *bounds, sys.executable, *words], name=name, what=name, env=env, timeout=seconds)


@contextmanager
def _copy(root: Path) -> Iterator[Path]:
    """The project's sources in a folder of their own, which goes when the run ends.

    Not below build/: what lies there half made, the next build removes.
    """

    def not_sources(folder: str, names: list[str]) -> list[str]:
        others = {"build", "store", ".git", ".venv"} if Path(folder) == root else set()
        return [n for n in names if n == "__pycache__" or n.endswith("_cache") or n in others]

    with tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name:
        target = Path(name).resolve() / "project"
        shutil.copytree(root, target, symlinks=True, ignore=not_sources)
        yield target


def _tools(workspace: Workspace) -> Path:
    """A folder with the packages of requirements/mutation.txt: no other task needs them, and there are many."""
    lock = workspace.requirements / "mutation.txt"
    target = workspace.stage("mutants-tools") / files.sha256(lock)[:16]
    if not target.is_dir():
        log.info("installing requirements/mutation.txt (once)")
        with files.whole_folder(target) as scratch:
            words = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--require-hashes"]
            run.run(
                [sys.executable, *words, "--no-deps", "--target", scratch, "-r", lock],
                name="pip-mutation",
                what="pip",
                hint="is the package index reachable from here? Then run it again",
            )
    return target


def _reach(box: Box, tools: Path) -> Path:
    """A folder with what pytest-cov and tests/outcomes.py tell about the unit tests of these very sources."""
    workspace = box.workspace
    key = files.sha256_text(files.canonical(files.tree_digests([box.copy], box.copy)))[:16]
    target = workspace.stage("mutants-reach") / key
    if not target.is_dir():
        log.info("finding out which unit test runs which line (once for these sources)")
        suite = str(workspace.unit_suite.relative_to(workspace.root))
        words = ["-m", "pytest", suite, "--numprocesses=2", "-q"]
        words += ["-p", "tests.outcomes", "--results=outcomes.json"]
        words += ["--cov=foundry", "--cov=patroni_node", "--cov-context=test", "--cov-report="]
        try:
            box.run(words, "pytest-reach", tools=tools)
        except CommandFailed as error:
            error.hint = "the unit tests have to pass before it can be said what they notice: `./inv test --only unit`"
            raise
        with files.whole_folder(target) as scratch:
            for name in (".coverage", "outcomes.json"):
                shutil.move(box.copy / name, scratch / name)
    return target


def _sample(box: Box, tools: Path, reach: Path, count: int, seed: int) -> list[dict[str, Any]]:
    found_out = (reach / ".coverage", reach / "outcomes.json")
    box.run(["-m", "tests.mutants", str(count), str(seed), *found_out, "mutants.json"], "mutants", tools=tools)
    found = files.read_json(box.copy / "mutants.json")
    if not found:
        raise FoundryError("there is nothing to change", hint="tests/mutations.py says what is left out")
    return list(found)


def _try(box: Box, mutant: dict[str, Any], number: int) -> Result:
    path = box.copy / mutant["file"]
    source, times = path.read_text(encoding="utf-8"), path.stat()
    begin, outcome = time.monotonic(), SURVIVED
    if mutant["tests"]:
        path.write_text(mutant["code"], encoding="utf-8")
        # Python takes compiled code for its source's where size and second of change are the same.
        os.utime(path, (times.st_atime, times.st_mtime + number))
        try:
            outcome = _outcome(box, mutant, number)
        finally:
            path.write_text(source, encoding="utf-8")
            os.utime(path, (times.st_atime, times.st_mtime))
    change = difflib.unified_diff(source.splitlines(), mutant["code"].splitlines(), lineterm="", n=1)
    return Result(
        mutant["file"],
        mutant["line"],
        mutant["operator"],
        outcome,
        len(mutant["tests"]),
        round(time.monotonic() - begin, 1),
        "\n".join([*change][2:]),
    )


def _outcome(box: Box, mutant: dict[str, Any], number: int) -> str:
    limit = START_SECONDS + TIMES * mutant["seconds"]
    begin = time.monotonic()
    try:
        (box.copy / "chosen.txt").write_text("".join(f"{name}\n" for name in mutant["tests"]), encoding="utf-8")
        places = dict.fromkeys(name.partition("::")[0] for name in mutant["tests"])
        words = ["-m", "pytest", "-x", "-q", "-p", "tests.chosen", "--chosen=chosen.txt", *places]
        box.run(words, f"pytest-mutant-{number}", seconds=limit)
    except CommandFailed:
        return TIMED_OUT if time.monotonic() - begin >= limit else NOTICED
    return SURVIVED
