"""`./inv test --mutants` with the real tools, on a project of a few lines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from foundry import mutation, run
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT

SOURCE = '''"""A module."""

from functools import cache

LIMIT: int = 10


def small(number: int | None = None) -> bool:
    """Whether it is below 10."""
    if number is None:
        raise ValueError(f"no number below {LIMIT + 1}")
    return number < LIMIT


@cache
def unused(number: int) -> int:
    return number + 1


def alone() -> str:
    return f"{LIMIT + 1}"
'''
TESTS = """
import sys
import pytest

def test_one():
    from foundry import module
    assert module.small(3)
    with pytest.raises(ValueError):
        module.small()

def test_two():
    from foundry import module
    assert module.small(9) and not module.small(10)

# Only beside what has loaded it: a run of some tests alone may lack it.
@pytest.mark.parametrize("loaded", [n for n in sys.modules if n == "first"])
def test_more(loaded):
    from foundry import module
    module.unused(1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project with one module, half tested; its tools are kept where those of this project are."""
    plugins = ("tests/outcomes.py", "tests/chosen.py")
    for name in (*plugins, "tests/mutants.py", "tests/mutations.py", "requirements/mutation.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "foundry").mkdir()
    (tmp_path / "foundry/module.py").write_text(SOURCE)
    (tmp_path / "tests/unit").mkdir()
    (tmp_path / "tests/unit/test_module.py").write_text(TESTS)
    # Loaded before the others.
    (tmp_path / "tests/unit/test_first.py").write_text("import sys\nsys.modules['first'] = sys\ndef test(): pass\n")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.coverage.run]\nrelative_files = true\n[tool.pytest.ini_options]\npythonpath = ['.']\n"
    )
    workspace = Workspace(tmp_path, Workspace.at(ROOT).build, tmp_path.name)
    run.keep_logs_in(tmp_path / "logs")
    return workspace


def test_what_is_noticed_and_what_survives(project: Workspace) -> None:
    report = mutation.hunt(project, 100, 1)
    by_line = {(r.line, r.operator.partition("_")[0]): (r.outcome, r.tests) for r in report.results}
    assert by_line == {
        # Loaded by one test, and of use to all.
        (5, "NumberReplacer"): ("noticed", 3),
        (10, "Condition"): ("noticed", 2),
        (10, "ReplaceComparisonOperator"): ("noticed", 2),
        (11, "Deleted"): ("noticed", 1),
        (12, "Returned"): ("noticed", 2),
        (12, "ReplaceComparisonOperator"): ("noticed", 2),
        # Only the test that is not there alone comes so far.
        (17, "Returned"): ("survived", 1),
        (17, "ReplaceBinaryOperator"): ("survived", 1),
        (17, "NumberReplacer"): ("survived", 1),
        # Nobody comes here; what is put into a text is not changed.
        (21, "Returned"): ("survived", 0),
    }
    assert (project.root / "foundry/module.py").read_text() == SOURCE
    again = mutation.hunt(project, 3, 1)
    assert [r.diff for r in again.results] == [r.diff for r in report.results[:3]]
