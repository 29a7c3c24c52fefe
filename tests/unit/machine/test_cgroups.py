from __future__ import annotations

from pathlib import Path

import pytest

from foundry.errors import GuestError
from foundry.machine import cgroups

NAME = "pf-1-abcdef-0"


@pytest.fixture
def hierarchies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host whose own groups are these: systemd's hierarchy and cgroup2 side by side."""
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/a.slice\n4:memory:/elsewhere\n0::/a.slice\n")
    monkeypatch.setattr(cgroups, "OWN_CGROUPS", own)
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    monkeypatch.setattr(cgroups, "PROCESSES", tmp_path / "proc")
    for name in ("systemd/a.slice", "unified/a.slice", "proc/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/1/stat").write_text(f"1 (init) S {' '.join(map(str, range(4, 30)))}")
    return tmp_path


def test_a_container_has_a_group_in_each_of_systemds_hierarchies(hierarchies: Path) -> None:
    made = cgroups.make(NAME)
    assert made == [hierarchies / "systemd/a.slice" / NAME, hierarchies / "unified/a.slice" / NAME]
    (made[1] / "payload/system.slice").mkdir(parents=True)
    assert cgroups.make(NAME) == made
    assert list(made[1].iterdir()) == [], "what the last boot left is gone"
    cgroups.remove(NAME)
    assert not any(folder.exists() for folder in made)


def test_a_host_with_cgroup2_only(hierarchies: Path) -> None:
    (hierarchies / "own").write_text("0::/a.slice\n")
    (hierarchies / "unified/a.slice").rmdir()
    (hierarchies / "unified").rmdir()
    (hierarchies / "a.slice").mkdir()
    assert cgroups.make(NAME) == [hierarchies / "a.slice" / NAME]


def test_a_host_that_lets_none_be_made(hierarchies: Path) -> None:
    (hierarchies / "unified/a.slice").rmdir()
    with pytest.raises(GuestError, match="no control group can be made"):
        cgroups.make(NAME)


def test_what_a_killed_run_left_is_swept_and_nothing_else(hierarchies: Path) -> None:
    parent = hierarchies / "unified/a.slice"
    for name in (NAME, "pf-999999999-abcdef-0", "pf-own", "payload"):
        (parent / name / "payload").mkdir(parents=True)
    cgroups.sweep()
    assert sorted(p.name for p in parent.iterdir()) == ["payload", NAME, "pf-own"]


def test_frozen_and_thawed(hierarchies: Path) -> None:
    folder = cgroups.make(NAME)[1]
    with pytest.raises(GuestError, match="cannot freeze"):
        cgroups.freeze(NAME, frozen=True)
    (folder / "cgroup.freeze").touch()
    (folder / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    cgroups.freeze(NAME, frozen=True)
    assert (folder / "cgroup.freeze").read_text() == "1"
    with pytest.raises(GuestError, match="frozen=False"):
        cgroups.freeze(NAME, frozen=False, seconds=0)
    assert (folder / "cgroup.freeze").read_text() == "0"
