"""What all unit tests share: none of them runs a real command unless it says so, and none sees the user's settings."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import log, run
from foundry.workspace import Workspace
from tests import profiles
from tests.unit.segment import Segment

profiles.load()


@pytest.fixture(autouse=True)
def _no_real_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("real_process"):
        return

    def refuse(args: object, *_: object, **__: object) -> None:
        pytest.fail(f"a unit test ran a real command: {args}; fake it, or mark the test real_process")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    # Python calls it on what __init__ never finished.
    monkeypatch.setattr(subprocess.Popen, "__del__", lambda self: None)


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("FOUNDRY_BUILD", "FOUNDRY_SET", "FOUNDRY_CALLED_FROM", "NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(run, "_log_dir", None)
    run._cancelled.clear()
    yield
    run._cancelled.clear()
    log.use(log.Silent())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty project in a folder of its own."""
    return Workspace.at(tmp_path)


@pytest.fixture(scope="module")
def shared_segment() -> Iterator[Segment]:
    found = Segment()
    yield found
    found.close()


@pytest.fixture
def segment(shared_segment: Segment) -> Segment:
    """A node, a neighbour and a stranger, and no filter yet."""
    shared_segment.run("node", "nft", "flush", "ruleset")
    return shared_segment
