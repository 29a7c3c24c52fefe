from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from foundry import ext4, run
from foundry.errors import FoundryError

OLD, EPOCH, NEW = 1000, 2000, 3000


def dated(path: Path, when: int) -> None:
    os.utime(path, (when, when), follow_symlinks=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "b").mkdir(parents=True)
    for name, when in (("z", NEW), ("a", OLD), ('b/say "x"', OLD)):
        (folder / name).write_text(name)
        (folder / name).chmod(0o640)
        dated(folder / name, when)
    os.link(folder / "a", folder / "c")
    (folder / "link").symlink_to("a b")
    for name in ("link", "b", "."):
        dated(folder / name, NEW)
    return folder


def lines(root: Path, tmp_path: Path) -> list[str]:
    owner = f"uid {os.getuid()}", f"gid {os.getgid()}"
    return [line for line in ext4._Script(root, tmp_path, EPOCH).lines() if not line.endswith(owner)]


def test_names_are_written_in_their_order_whatever_the_folder_s_is(root: Path, tmp_path: Path) -> None:
    assert lines(root, tmp_path) == [
        'cd "/"',
        f'write "{root}/a" "a"',
        f'sif "./a" mtime @{OLD}',
        'mkdir "b"',
        'ln "/a" "c"',
        'symlink "link" "a b"',
        f'write "{root}/z" "z"',
        'cd "/b"',
        f'write "{root}/b/say ""x""" "say ""x"""',
        f'sif "./say ""x""" mtime @{OLD}',
        'cd "/b"',
        'cd "/"',
        'sif "/a" links_count 2',
    ]


def test_a_mode_that_is_not_what_mkdir_gives_is_set(root: Path, tmp_path: Path) -> None:
    (root / "b").chmod(0o1777)
    assert 'sif "./." mode 041777' in lines(root, tmp_path)


def test_a_line_break_would_be_another_command(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a\nrm b").write_text("x")
    with pytest.raises(FoundryError, match="line break"):
        lines(tmp_path / "root", tmp_path)


def test_what_debugfs_could_not_do_is_an_error(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'debugfs 1.47.0 (5-Feb-2023)\ndebugfs: write "a" "a"\nAllocated inode: 12\n'
    monkeypatch.setattr(run, "run", lambda *a, **k: run.Result((), 0, said, None))
    place = ext4.Place(tmp_path / "disk.raw", 0, 2**20, "0", "root")
    ext4.build(root, place, EPOCH)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["root"]
    said += "write: Could not allocate block in ext2 filesystem\n"
    with pytest.raises(FoundryError, match="Could not allocate block"):
        ext4.build(root, place, EPOCH)


def test_no_clock_is_asked(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def note(*args: Any, **options: Any) -> run.Result:
        given.append(options["env"])
        return run.Result((), 0, "", None)

    monkeypatch.setattr(run, "run", note)
    ext4.build(root, ext4.Place(tmp_path / "disk.raw", 0, 2**20, "0", "root"), EPOCH)
    assert given == [{"E2FSPROGS_FAKE_TIME": str(EPOCH)}] * 2
