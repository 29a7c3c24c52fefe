"""Small verbs on files: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from foundry import errors, files


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep/file"
    files.write(path, "old", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert names(path.parent) == ["file"]


def test_whole_folder_appears_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with files.whole_folder(target) as scratch:
        (scratch / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert names(tmp_path) == ["result"]


def _fill_and_stop(scratch: Path) -> None:
    (scratch / "new").touch()
    raise KeyboardInterrupt


def test_whole_folder_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(KeyboardInterrupt), files.whole_folder(target) as scratch:
        _fill_and_stop(scratch)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["result"]


def test_tree_digests_see_content_mode_and_name_but_no_caches(tmp_path: Path) -> None:
    (tmp_path / "d/__pycache__").mkdir(parents=True)
    (tmp_path / "d/__pycache__/x.pyc").touch()
    (tmp_path / "d/a").write_text("1")
    first = files.tree_digests([tmp_path / "d"], tmp_path)
    assert list(first) == ["d/a"]
    (tmp_path / "d/a").chmod(0o755)
    second = files.tree_digests([tmp_path / "d"], tmp_path)
    (tmp_path / "d/a").write_text("2")
    third = files.tree_digests([tmp_path / "d"], tmp_path)
    assert len({str(first), str(second), str(third)}) == 3


def test_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x", {"b": 1, "a": "é"})
    assert files.read_json(tmp_path / "x") == {"a": "é", "b": 1}
    assert files.read_json(tmp_path / "none") is None
    (tmp_path / "x").write_text("{")
    assert files.read_json(tmp_path / "x") is None


def test_canonical_ignores_order() -> None:
    assert files.canonical({"a": 1, "b": 2}) == files.canonical({"b": 2, "a": 1}) == '{"a":1,"b":2}'


def test_need_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 5, 5_000_000))
    files.need_space(tmp_path, 5_000_000, "base")
    with pytest.raises(errors.FoundryError, match=r"base: .* has 5\.0 MB free and needs 6\.0 MB") as caught:
        files.need_space(tmp_path, 6_000_000, "base")
    assert "FOUNDRY_BUILD" in (caught.value.hint or "")


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (281_400_000, "281.4 MB"), (2e12, "2.0 TB")])
def test_human(size: float, text: str) -> None:
    assert files.human(size) == text


def test_every_error_has_its_own_code() -> None:
    kinds = [errors.FoundryError, *errors.FoundryError.__subclasses__()]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert str(errors.ConfigError("what", hint="next")) == "what"


def test_a_disk_is_what_it_holds_and_not_how_its_file_lies_there(tmp_path: Path) -> None:
    mib = 1 << 20

    def disk(name: str, *parts: tuple[int, bytes], size: int = 5 * mib) -> str:
        path = tmp_path / name
        with path.open("wb") as stream:
            stream.truncate(size)
            for at, data in parts:
                stream.seek(at)
                stream.write(data)
        return files.disk_digest(path)

    first = disk("a", (2 * mib + 7, b"data"))
    assert disk("b", (0, bytes(mib)), (2 * mib, bytes(7) + b"data" + bytes(3 * mib - 11))) == first
    others = [
        disk("c", (2 * mib + 7, b"date")),
        disk("d", (3 * mib + 7, b"data")),
        disk("e", (2 * mib + 7, b"data"), (5 * mib - 1, b"x")),
        disk("f", (2 * mib + 7, b"data"), size=5 * mib + 1),
        disk("g"),
        disk("h", size=0),
    ]
    assert len({first, *others}) == len(others) + 1


def test_all_of_a_folder_is_in_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder() -> Path:
        made = Path(tempfile.mkdtemp(dir=tmp_path))
        (made / "below").mkdir()
        (made / "below/file").write_text("data")
        (made / "link").symlink_to("below")
        for path in (made / "below/file", made / "below", made):
            os.utime(path, (1, 1))
        os.utime(made / "link", (1, 1), follow_symlinks=False)
        return made

    def digest(change: Callable[[Path], object]) -> str:
        made = folder()
        change(made)
        for path in (made / "below", made):
            os.utime(path, (1, 1))
        return files.folder_digest(made)

    def replace(made: Path, target: str) -> None:
        (made / "link").unlink()
        (made / "link").symlink_to(target)
        os.utime(made / "link", (1, 1), follow_symlinks=False)

    def content(made: Path) -> None:
        (made / "below/file").write_text("date")
        os.utime(made / "below/file", (1, 1))

    first = files.folder_digest(folder())
    assert digest(lambda made: None) == digest(lambda made: replace(made, "below")) == first
    others = [
        digest(content),
        digest(lambda made: os.utime(made / "below/file", (1, 2))),
        digest(lambda made: (made / "below/file").chmod(0o600)),
        digest(lambda made: (made / "below").chmod(0o700)),
        digest(lambda made: replace(made, "elsewhere")),
        digest(lambda made: (made / "below/more").touch()),
        digest(lambda made: (made / "empty").mkdir()),
        digest(lambda made: (made / "below/file").rename(made / "below/other")),
    ]
    # Not every file system has them.
    monkeypatch.setattr(os, "listxattr", lambda path, **_: ["user.a"])
    for value in (b"a", b"b"):
        monkeypatch.setattr(os, "getxattr", lambda path, name, value=value, **_: value)
        others.append(files.folder_digest(folder()))
    assert len({first, *others}) == len(others) + 1
