"""What the task `test` refuses before it runs anything."""

from __future__ import annotations

import pytest

from foundry import config, suite
from foundry.errors import ConfigError
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT


def test_a_machine_that_is_none_is_refused_at_once() -> None:
    workspace = Workspace.at(ROOT)
    shown: list[str] = []
    with pytest.raises(ConfigError, match="--machine: vn is not one of container, vm"):
        suite.test(config.load(workspace.config), workspace, fast=False, show=shown.append, machine="vn")
    assert shown == []
