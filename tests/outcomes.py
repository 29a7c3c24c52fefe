"""A plugin of pytest, loaded by foundry/suite.py: writes each test's name, outcome and seconds as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="where to write each test's outcome and seconds as JSON")


def pytest_configure(config: pytest.Config) -> None:
    # The processes of pytest-xdist tell the first one what they have seen.
    if config.getoption("--results") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(config.getoption("--results")), "foundry-results")


class Outcomes:
    """What became of every test, the worst of its three phases counting; a file that cannot be loaded is one."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.rows: dict[str, dict[str, Any]] = {}

    def _row(self, name: str) -> dict[str, Any]:
        return self.rows.setdefault(name, {"name": name, "outcome": "passed", "seconds": 0.0})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self._row(report.nodeid)
        row["seconds"] = round(row["seconds"] + report.duration, 3)
        if hasattr(report, "wasxfail"):
            row["outcome"] = "xfailed" if report.skipped else "xpassed"
        elif report.failed:
            row["outcome"] = "error" if report.when in ("setup", "teardown") else "failed"
        elif report.skipped:
            row["outcome"] = "skipped"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._row(report.nodeid)["outcome"] = "error"

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        # Of several suites only one has to have what a keyword names.
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.getoption("-k"):
            session.exitstatus = pytest.ExitCode.OK
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.target.write_text(json.dumps(list(self.rows.values())), encoding="utf-8")
