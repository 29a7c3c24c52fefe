"""Who holds a lab's folder."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from foundry.errors import ConfigError, FoundryError
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


def test_nothing_is_left_and_only_the_owner_looks_in(tmp_path: Path) -> None:
    folder = tmp_path / "labs/lab"
    with claim.claimed(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "machines/upper").mkdir(parents=True)
        (folder / "plan.json").touch()
        (folder / "link").symlink_to(tmp_path, target_is_directory=True)
        claim.empty(folder)
        assert [p.name for p in folder.iterdir()] == [claim.CLAIM]
        claim.remove(folder)
    assert list((tmp_path / "labs").iterdir()) == []


def test_who_writes_still_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.rmtree
    failures = iter([errno.ENOTEMPTY, errno.ENOENT])

    def busy(path: Path) -> None:
        code = next(failures, None)
        if code:
            raise OSError(code, os.strerror(code), str(path))
        real(path)

    monkeypatch.setattr(claim.shutil, "rmtree", busy)
    (tmp_path / "lab/machines").mkdir(parents=True)
    claim.remove(tmp_path / "lab")
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EROFS])
def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def stuck(path: Path) -> None:
        raise OSError(code, os.strerror(code), f"{path}/root")

    monkeypatch.setattr(claim.shutil, "rmtree", stuck)
    monkeypatch.setattr(claim, "REMOVE_SECONDS", 0.2)
    (tmp_path / "lab/machines").mkdir(parents=True)
    with pytest.raises(FoundryError, match=rf"machines/root cannot be removed: {os.strerror(code)}"):
        claim.remove(tmp_path / "lab")
