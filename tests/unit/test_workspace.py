"""Where everything lies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foundry.workspace import Workspace


def test_all_that_is_made_lies_in_build(workspace: Workspace, tmp_path: Path) -> None:
    made = [workspace.logs, workspace.work, workspace.failed, workspace.pool, workspace.images, workspace.lock]
    assert all(path.is_relative_to(tmp_path / "build") for path in [*made, workspace.stage("base")])
    assert re.fullmatch(r"\d{8}-\d{6}", workspace.run_id)


def test_foundry_build_moves_the_build_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNDRY_BUILD", str(tmp_path / "large"))
    workspace = Workspace.at(tmp_path)
    assert workspace.pool == tmp_path / "large/pool"
    assert workspace.config == tmp_path / "foundry.yml"


def test_asking_makes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.unit_suite.name == "unit"
    assert list(tmp_path.iterdir()) == []
