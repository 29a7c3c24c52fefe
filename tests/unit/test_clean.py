"""`invoke clean`: what goes, what stays, and when nothing may be touched."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from foundry import clean, files
from foundry.errors import FoundryError
from foundry.lab import claim, keeper
from foundry.workspace import Workspace


def fill(workspace: Workspace) -> None:
    for age, name in enumerate(("new", "old", ".half")):
        for store in (
            workspace.stage("base"),
            workspace.stage("test-results"),
            workspace.logs.parent,
            workspace.images,
        ):
            folder = store / name
            folder.mkdir(parents=True)
            (folder / "file").write_text("x" * 5000)
            os.utime(folder, (1000 - age, 1000 - age))
    for folder in (
        workspace.work / "run",
        workspace.failed,
        workspace.pool,
        workspace.wheels / "sub",
        workspace.keyring,
        workspace.publisher / "private-keys-v1.d",
        workspace.publisher / "openpgp-revocs.d",
    ):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_the_newest_results_downloads_and_images_stay(workspace: Workspace) -> None:
    fill(workspace)
    cleaned = clean.clean(workspace)
    stores = {"base", "images", "keyring", "logs", "pool", "publisher", "test-results", "wheels"}
    assert names(workspace.build) == {"lock", *stores}
    assert names(workspace.stage("base")) == names(workspace.logs.parent) == {"new"}
    assert names(workspace.stage("test-results")) == {"new"}
    assert names(workspace.images) == {"new", "old", ".half"}
    assert names(workspace.wheels) == {"sub", "file"} or names(workspace.wheels) == {"sub"}
    assert names(workspace.publisher) == {"private-keys-v1.d", "openpgp-revocs.d"}
    assert cleaned.freed > 0
    assert f"removed {workspace.work}" in cleaned.summary()
    assert clean.clean(workspace).summary() == ["nothing to remove"]


def test_everything_goes_but_the_lock(workspace: Workspace) -> None:
    fill(workspace)
    clean.clean(workspace, everything=True)
    assert names(workspace.build) == {"lock"}


def test_what_stores_have_served_is_not_forgotten_without_a_word(workspace: Workspace) -> None:
    fill(workspace)
    files.write(workspace.seen, "{}")
    cleaned = clean.clean(workspace, everything=True)
    assert names(workspace.build) == {"lock", "seen.json"}
    assert [line.partition(":")[0] for line in cleaned.summary() if "kept" in line] == [f"kept {workspace.seen}"]


def test_nothing_was_built(workspace: Workspace) -> None:
    assert clean.clean(workspace, everything=True).removed == ()
    assert not workspace.build.exists()


def test_refused_while_another_run_is_under_way(workspace: Workspace) -> None:
    fill(workspace)
    with workspace.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FoundryError, match="another run is using"):
            clean.clean(workspace, everything=True)
    assert workspace.work.exists()


def test_refused_while_something_is_mounted(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(workspace)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 2 7:0 / {workspace.work}/root\\040fs rw - ext4 /dev/loop0 rw\n")
    monkeypatch.setattr(clean, "MOUNTS", mounts)
    with pytest.raises(FoundryError, match="root fs is mounted"):
        clean.clean(workspace)
    assert workspace.work.exists()


def test_a_link_is_removed_and_not_followed(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (workspace.work / "link").symlink_to(outside)
    (workspace.build / "link").symlink_to(outside)
    clean.clean(workspace, everything=True)
    assert names(outside) == {"kept"}


def test_a_lab_in_use_stays_and_what_a_killed_one_has_left_goes(workspace: Workspace) -> None:
    (workspace.labs / "dead").mkdir(parents=True)
    with claim.claimed(workspace.labs / "a"):
        with pytest.raises(FoundryError, match=r"a of .* is in use, so nothing was removed"):
            clean.clean(workspace, everything=True)
        assert clean.clean(workspace).removed == (workspace.labs / "dead",)
        assert claim.held(workspace.labs / "a")


def test_the_published_version_that_a_lab_runs_stays(workspace: Workspace) -> None:
    fetched = workspace.stage("fetched")
    for number, version in enumerate(("1", "2", "3")):
        disk = fetched / version / "disk.qcow2"
        disk.parent.mkdir(parents=True)
        disk.touch()
        os.utime(disk.parent, (number, number))
    with claim.claimed(workspace.labs / "lab"):
        files.write_json(workspace.labs / "lab" / keeper.PLAN, {"image": str(fetched / "1" / "disk.qcow2")})
        clean.clean(workspace)
    assert names(fetched) == {"1", "3"}
