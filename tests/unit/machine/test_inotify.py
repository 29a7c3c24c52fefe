from __future__ import annotations

from pathlib import Path

import pytest

from foundry.errors import ToolMissing
from foundry.machine import inotify


def process(folder: Path, pid: int, *targets: str) -> None:
    (folder / f"{pid}/fd").mkdir(parents=True)
    for number, target in enumerate(targets):
        (folder / f"{pid}/fd/{number}").symlink_to(target)


def test_counts_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(tmp_path, 1, "anon_inode:inotify", "/dev/null", "anon_inode:[eventpoll]")
    process(tmp_path, 22, "anon_inode:inotify", "anon_inode:inotify")
    (tmp_path / "self").mkdir()
    monkeypatch.setattr(inotify, "_owner", lambda folder: 0)
    assert inotify.instances(tmp_path) == 3
    monkeypatch.setattr(inotify, "_owner", lambda folder: 1000)
    assert inotify.instances(tmp_path) == 0


@pytest.mark.parametrize(("used", "refused"), [(104, False), (105, True)])
def test_a_container_that_would_hang_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: int, refused: bool
) -> None:
    (tmp_path / "limit").write_text("128\n")
    monkeypatch.setattr(inotify, "INOTIFY_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(inotify, "instances", lambda: used)
    if not refused:
        inotify.require_room(3)
        return
    with pytest.raises(ToolMissing, match="128 inotify instances, 105 are in use, and 3 containers need 24 more") as e:
        inotify.require_room(3)
    assert e.value.hint is not None
    assert "sysctl -w fs.inotify.max_user_instances" in e.value.hint
