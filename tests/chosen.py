"""A plugin of pytest, loaded by foundry/mutation.py: runs the tests that a file lists, in that order, and no others.

pytest itself stops at a name that it does not find; some tests are there only beside those of other files.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chosen", type=Path, help="a file with the names of tests, one in each line")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    names = config.getoption("--chosen").read_text(encoding="utf-8").splitlines()
    order = {name: number for number, name in enumerate(names)}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in order])
    items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Nothing was there that could have failed.
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK
