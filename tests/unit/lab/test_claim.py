"""Who holds a lab's folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from foundry.errors import ConfigError
from foundry.lab import claim, keeper


def test_only_one_holds_a_lab_and_the_other_is_told_who(tmp_path: Path) -> None:
    folder = tmp_path / "labs" / "a"
    assert not claim.held(folder)
    with claim.claimed(folder):
        assert claim.held(folder)
        with (
            pytest.raises(ConfigError, match=f"process {os.getpid()}\\) is making or removing lab a"),
            claim.claimed(folder),
        ):
            pass
    assert not claim.held(folder)
    with claim.claimed(folder):
        pass


def test_who_holds_a_lab_may_remove_it_and_the_next_makes_it_anew(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with claim.claimed(folder):
        shutil.rmtree(folder)
        assert not claim.held(folder)
        with claim.claimed(folder):
            assert claim.held(folder)


def test_a_lab_that_runs_is_refused_as_such(tmp_path: Path) -> None:
    with claim.claimed(tmp_path / "a"):
        (tmp_path / "a" / keeper.STATE).touch()
        with pytest.raises(ConfigError, match="lab a runs already"), claim.claimed(tmp_path / "a"):
            pass


def test_what_a_killed_command_has_left_is_waited_for_and_no_longer(tmp_path: Path) -> None:
    with claim.claimed(tmp_path / "a"):
        (tmp_path / "a" / claim.CLAIM).write_text("999999999 1", encoding="utf-8")
        with pytest.raises(ConfigError, match="does not end"), claim.claimed(tmp_path / "a", 0.1):
            pass
