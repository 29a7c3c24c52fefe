"""The suite's fixtures: the booted node, what a script found on it, and the files of the image before it was booted."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

FACTS, ACCESS = (Path(__file__).with_name(name) for name in ("guest_facts.py", "guest_access.py"))
_FOUND = pytest.StashKey[dict[Path, dict[str, Any]]]()
_OUTCOMES = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--node", type=Path, help="JSON file about the booted node, written by foundry/verify.py")
    parser.addoption("--outcomes", type=Path, help="where to write each test's outcome as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--node"):
        raise pytest.UsageError("tests/image needs a booted image: run `./inv verify-image`")
    config.stash[_OUTCOMES] = {}
    config.stash[_FOUND] = {}
    config.pluginmanager.register(_Reporter(config), "foundry-outcomes")


class _Reporter:
    """Writes name, outcome, seconds and message of every test, the worst of its three phases counting."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found = self.config.stash[_OUTCOMES]
        # testinfra puts the host into every test's name; there is only one.
        name = re.sub(r"ssh://node-?", "", report.nodeid).replace("[]", "")
        row = found.setdefault(name, {"name": name, "outcome": "passed", "seconds": 0.0, "message": ""})
        row["seconds"] = round(row["seconds"] + report.duration, 3)
        if hasattr(report, "wasxfail"):
            row["outcome"] = "xfailed" if report.skipped else "xpassed"
        elif report.failed:
            row["outcome"] = "failed" if report.when == "call" else "error"
        elif report.skipped:
            row["outcome"] = "skipped"
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            row["message"] = crash.message if crash else str(report.longrepr)

    def pytest_sessionfinish(self) -> None:
        target = self.config.getoption("--outcomes")
        if target:
            target.write_text(json.dumps(list(self.config.stash[_OUTCOMES].values()), indent=1), encoding="utf-8")


@pytest.fixture(scope="session")
def node(pytestconfig: pytest.Config) -> dict[str, Any]:
    """What the node was told to be: name, hostname, cluster, address, network, instance_id, user, secret."""
    return json.loads(pytestconfig.getoption("--node").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def pristine(node: dict[str, Any]) -> Path:
    """The image's files before it was booted. Absolute links in it lead out of it: follow them with `within`."""
    return Path(node["pristine"])


@pytest.fixture(scope="session")
def within(pristine: Path) -> Callable[[str], Path]:
    """Finds a file of the pristine tree by its path on the node, links taken as the node would take them."""

    def resolve(name: str) -> Path:
        path = pristine
        for part in Path(name).parts:
            path = path / part
            if path.is_symlink():
                goal = path.readlink()
                path = resolve(str(goal).lstrip("/")) if goal.is_absolute() else path.parent / goal
        return path

    return resolve


def _found(script: Path, host: Any, node: dict[str, Any], config: pytest.Config) -> dict[str, Any]:
    """What a script finds on the node, asked once."""
    known = config.stash[_FOUND]
    if script not in known:
        text = base64.b64encode(script.read_bytes()).decode()
        told = {key: node[key] for key in ("address", "cluster", "secret")}
        told["restarted"] = config.option.markexpr == "rebooted"
        argument = base64.b64encode(json.dumps(told).encode()).decode()
        result = host.run(f"echo {text} | base64 -d | sudo python3 - {argument}")
        assert result.rc == 0, result.stderr
        known[script] = json.loads(result.stdout)
    return known[script]


@pytest.fixture(scope="module")
def facts(host: Any, node: dict[str, Any], pytestconfig: pytest.Config) -> dict[str, Any]:
    """What guest_facts.py finds on the node: one connection instead of a hundred, each of which costs half a second."""
    return _found(FACTS, host, node, pytestconfig)


@pytest.fixture(scope="module")
def access(host: Any, node: dict[str, Any], facts: dict[str, Any], pytestconfig: pytest.Config) -> dict[str, Any]:
    """What guest_access.py is let in to, once the node leads (facts)."""
    return _found(ACCESS, host, node, pytestconfig)


@pytest.fixture(scope="module")
def patroni_yml(facts: dict[str, Any]) -> dict[str, Any]:
    """The rendered patroni.yml, parsed."""
    return yaml.safe_load(facts["files"]["/etc/patroni/patroni.yml"]["content"])
