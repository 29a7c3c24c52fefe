"""What the task `test` refuses before it runs anything, and what it runs although something has failed."""

from __future__ import annotations

import pytest

from foundry import config, suite
from foundry.errors import CommandFailed, ConfigError, FoundryError
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT


def test_a_machine_that_is_none_is_refused_at_once() -> None:
    workspace = Workspace.at(ROOT)
    shown: list[str] = []
    with pytest.raises(ConfigError, match="--machine: vn is not one of container, vm"):
        suite.test(config.load(workspace.config), workspace, fast=False, show=shown.append, machine="vn")
    assert shown == []


@pytest.mark.parametrize(
    ("fails", "ran"),
    [
        ("unit", ["lint", "unit"]),
        ("image", ["lint", "unit", "image"]),
        ("cluster", ["lint", "unit", "image", "cluster", "pipeline"]),
        ("pipeline", ["lint", "unit", "image", "cluster", "pipeline"]),
    ],
)
def test_what_can_still_tell_something_is_run(fails: str, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def do(name: str) -> None:
        found.append(name)
        if name == fails:
            raise CommandFailed(f"{name} exited 1")

    monkeypatch.setattr(suite.lint, "lint", lambda *_: do("lint"))
    monkeypatch.setattr(suite, "_image", lambda *_: do("image"))
    monkeypatch.setattr(suite, "pytest", lambda _workspace, folder, *_: do(folder.name))
    workspace = Workspace.at(ROOT)
    with pytest.raises(FoundryError, match=f"test: {fails}"):
        suite.test(config.load(workspace.config), workspace, fast=False, show=print, machine="container")
    assert found == ran
