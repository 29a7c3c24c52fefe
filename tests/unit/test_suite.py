"""What the task `test` runs of all that it could, what it refuses before it runs anything, and what it keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tasks
from foundry import config, image, lint, results, run, suite, verify
from foundry.errors import CommandFailed, ConfigError, FoundryError
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT

CFG = config.load(ROOT / "foundry.yml")


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (suite.Wish(machine="vn"), "--machine: vn is not one of container, vm"),
        (suite.Wish(only=("units",)), "--only: units is not one of lint, unit, image, cluster, pipeline"),
        (suite.Wish(only=("unit,",)), "--only:  is not one of lint, unit"),
        (suite.Wish(only=("image",), keyword="x"), "-k chooses among the tests of unit, cluster, pipeline; image"),
        (suite.Wish(fast=True, only=("cluster",)), "--fast leaves cluster out"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(wish: suite.Wish, says: str, workspace: Workspace) -> None:
    shown: list[str] = []
    with pytest.raises(ConfigError, match=says):
        suite.test(CFG, workspace, wish, shown.append)
    assert shown == [] and not workspace.build.exists()


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [
        (suite.Wish(), ["lint", "unit", "image", "cluster", "pipeline"]),
        (suite.Wish(fast=True), ["lint", "unit"]),
        (suite.Wish(only=("pipeline,lint", "unit")), ["lint", "unit", "pipeline"]),
        (suite.Wish(keyword="x"), ["unit", "cluster", "pipeline"]),
        (suite.Wish(fast=True, keyword="x"), ["unit"]),
        (suite.Wish(only=("cluster",), keyword="x"), ["cluster"]),
    ],
)
def test_the_suites_of_a_wish(wish: suite.Wish, chosen: list[str]) -> None:
    assert wish.suites() == chosen


Asked = list[tuple[str, tuple[str, ...], tuple[str, ...]]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was asked of pytest: the suite, the options, and the tests."""
    found: Asked = []

    def fake(_: Workspace, folder: Path, show: object, *options: str, tests: tuple[str, ...]) -> None:
        found.append((folder.name, options, tests))

    monkeypatch.setattr(suite, "pytest", fake)
    monkeypatch.setattr(lint, "lint", lambda _: found.append(("lint", (), ())))
    monkeypatch.setattr(suite, "_image", lambda *_: found.append(("image", (), ())))
    return found


def keep(workspace: Workspace, *parts: results.Part, run_id: str = "1", machine: str = "container") -> None:
    results.Results("2026-12-01T00:00:00+00:00", {"machine": machine}, parts).keep(replace(workspace, run_id=run_id))


def part(name: str, outcome: str, **cases: str) -> results.Part:
    return results.Part(name, outcome, cases=tuple(results.Case(n, name, o, 1.0) for n, o in cases.items()))


def test_last_failed_runs_the_tests_that_failed_and_whole_suites_that_name_none(
    workspace: Workspace, asked: Asked
) -> None:
    keep(workspace, part("pipeline", "failed", old="failed"), run_id="0")
    keep(
        workspace,
        part("lint", "failed"),
        part("unit", "failed", a="passed", b="failed", c="error", d="skipped", e="xpassed", f="xfailed"),
        part("cluster", "passed", g="passed"),
        part("image", "not run"),
        machine="vm",
    )
    suite.test(CFG, workspace, suite.Wish(last_failed=True), print)
    assert [(name, tests) for name, _, tests in asked] == [("lint", ()), ("unit", ("b", "c", "e"))]
    found = results.newest(workspace)
    assert found and found.options["machine"] == "vm"


def test_last_failed_of_one_suite(workspace: Workspace, asked: Asked) -> None:
    keep(workspace, part("cluster", "failed", a="failed"), part("pipeline", "failed", b="failed"), machine="vm")
    suite.test(CFG, workspace, suite.Wish(last_failed=True, only=("cluster",)), print)
    assert asked == [("cluster", ("--machine=vm",), ("a",))]


def test_where_nothing_has_failed_nothing_is_run(
    workspace: Workspace, asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks, "WORKSPACE", workspace)
    monkeypatch.setattr(tasks, "configuration", lambda _: CFG)
    keep(workspace, part("unit", "passed", a="passed"))
    tasks.test(tasks.Context(), last_failed=True)
    assert capsys.readouterr().out == "test: nothing failed last time\n"
    assert asked == []
    assert [p.parent.name for p in workspace.stage("test-results").glob("*/*")] == ["1"]


@pytest.mark.parametrize("kept", [None, "{}", "[]", '{"started": "", "options": {}, "tests": [{}], "suites": []}'])
def test_last_failed_without_results_is_refused(workspace: Workspace, asked: Asked, kept: str | None) -> None:
    if kept is not None:
        (workspace.stage("test-results") / "1").mkdir(parents=True)
        (workspace.stage("test-results") / "1" / "results.json").write_text(kept)
    with pytest.raises(FoundryError, match="--last-failed: no results are kept"):
        suite.test(CFG, workspace, suite.Wish(last_failed=True), print)
    assert asked == []


def test_the_keyword_has_a_short_flag_and_reaches_pytest(workspace: Workspace, asked: Asked) -> None:
    names = [argument.names for argument in tasks.test.get_arguments()]
    assert ("keyword", "k") in names and ("set", "s") in names
    with pytest.raises(FoundryError, match="no test of unit, cluster, pipeline fits -k a or b"):
        suite.test(CFG, workspace, suite.Wish(keyword="a or b"), print)
    assert [name for name, _, _ in asked] == ["unit", "cluster", "pipeline"]
    assert all("-k=a or b" in options for _, options, _ in asked)


def test_results_come_back_as_they_were_kept(workspace: Workspace) -> None:
    cases = tuple(results.Case(f"t{n}", "unit", "passed", float(n)) for n in range(12))
    made = results.Results("2026-12-01T00:00:00+00:00", {}, (results.Part("unit", "passed", 3.5, 81.0, cases),))
    kept = made.keep(workspace)
    assert results.newest(workspace) == made
    assert json.loads(kept.read_text())["suites"][0]["tests"] == 12
    head, row, names, *slowest = [line.split() for line in made.lines()]
    assert (head, row) == (["suite", "outcome", "tests", "seconds", "CPU"], ["unit", "passed", "12", "3.5", "81%"])
    assert names == ["seconds", "suite", "slowest", "tests"]
    assert [name for _, _, name in slowest] == [f"t{n}" for n in range(11, 1, -1)]


def test_what_an_earlier_run_has_tested_is_said_and_is_not_slow(workspace: Workspace) -> None:
    old = replace(part("image", "passed", a="passed"), reused=True)
    assert results.Results("", {}, (old,)).lines()[1:] == [
        "image  passed       1       0.0      -  tested by an earlier run"
    ]


def test_the_cores_are_busy_as_the_kernel_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = tmp_path / "stat"
    monkeypatch.setattr(results, "CPU_TIMES", times)
    times.write_text("cpu  100 10 20 1000 50 1 2 3 90 9\ncpu0 1 1 1 1\n")
    cores = results.Cores()
    assert cores.busy() == 0.0
    times.write_text("cpu  140 10 30 1030 70 1 2 3 99 9\ncpu0 1 1 1 1\n")
    assert cores.busy() == 50.0


def verdict(started: str) -> verify.Verdict:
    outcome = verify.Outcome("test_boot.py::test_x", "booted", "failed", 2.5)
    host: dict[str, str] = {}
    return verify.Verdict("", "", "", "vm", "bios", "tcg", host, started, started, 1, 1, 1, (outcome,))


@pytest.mark.parametrize(
    ("started", "fails", "names", "reused"),
    [
        ("2999-01-01T00:00:00+00:00", True, ["test_boot.py::test_x"], False),
        ("2026-01-01T00:00:00+00:00", False, ["test_boot.py::test_x"], True),
        # Nothing of this run: it ended before the image was there.
        ("2026-01-01T00:00:00+00:00", True, [], False),
    ],
)
def test_the_images_tests_are_those_of_its_verdict(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, started: str, fails: bool, names: list[str], reused: bool
) -> None:
    def act(*_: object) -> None:
        if fails:
            raise CommandFailed("no")

    monkeypatch.setattr(suite, "_image", act)
    release = image.Release(workspace.images, {"files": [{"name": "disk.qcow2", "sha256": ""}]})
    monkeypatch.setattr(image, "newest", lambda *_: release)
    monkeypatch.setattr(verify, "load", lambda _: verdict(started))
    if fails:
        with pytest.raises(FoundryError, match="image failed"):
            suite.test(CFG, workspace, suite.Wish(only=("image",)), print)
    else:
        suite.test(CFG, workspace, suite.Wish(only=("image",)), print)
    found = results.newest(workspace)
    assert found is not None
    (only,) = found.parts
    assert ([case.name for case in only.cases], only.reused) == (names, reused)


TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert False
@pytest.mark.skip
def test_skipped(): pass
@pytest.fixture
def broken(): raise ValueError
@pytest.mark.parametrize("word", ["a::b [c]"])
def test_broken(broken, word): pass
@pytest.mark.xfail(strict=False)
def test_expected(): assert False
"""


@pytest.fixture
def project(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project with a few unit tests, and one for clusters."""
    workspace.unit_suite.mkdir(parents=True)
    workspace.cluster_suite.mkdir()
    shutil.copyfile(ROOT / "tests/outcomes.py", workspace.root / "tests/outcomes.py")
    (workspace.root / "pytest.ini").touch()
    (workspace.unit_suite / "test_one.py").write_text(TESTS)
    (workspace.unit_suite / "test_two.py").write_text("import nothing_such\n")
    (workspace.cluster_suite / "test_three.py").write_text("def test_good(): pass\n")
    monkeypatch.setattr(suite, "CLUSTERS", {"container": ()})
    run.keep_logs_in(workspace.logs)
    return workspace


def run_and_fail(project: Workspace, wish: suite.Wish) -> dict[str, str]:
    with pytest.raises(FoundryError, match="test: unit failed"):
        suite.test(CFG, project, wish, print)
    found = results.newest(project)
    assert found is not None
    return {case.name: case.outcome for case in found.parts[0].cases}


@pytest.mark.real_process
def test_what_pytest_found_is_kept_and_run_again(project: Workspace) -> None:
    one, two = "tests/unit/test_one.py", "tests/unit/test_two.py"
    bad = {f"{one}::test_bad": "failed", f"{one}::test_broken[a::b [c]]": "error", two: "error"}
    assert run_and_fail(project, suite.Wish(only=("unit",))) == {
        f"{one}::test_good": "passed",
        f"{one}::test_skipped": "skipped",
        f"{one}::test_expected": "xfailed",
        **bad,
    }
    project = replace(project, run_id="99999999-000000")
    assert run_and_fail(project, suite.Wish(last_failed=True)) == bad


@pytest.mark.real_process
def test_a_keyword_may_fit_the_tests_of_one_suite_only(project: Workspace) -> None:
    (project.unit_suite / "test_two.py").unlink()
    found = suite.test(CFG, project, suite.Wish(only=("unit", "cluster"), keyword="three"), print)
    assert [(p.name, p.outcome) for p in found.parts] == [("unit", "no tests"), ("cluster", "passed")]
