from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from foundry import files, log, stages
from foundry.errors import CorruptArtifact
from foundry.workspace import Workspace


def make(text: str) -> stages.Callable[[Path], None]:
    return lambda scratch: files.write(scratch / "out", text)


def test_first_build_then_reuse(workspace: Workspace) -> None:
    log.use(log.Silent())
    first = stages.decide(workspace, "base", {"a": "1"})
    assert (first.reuse, first.reason) == (False, "first build")
    folder = stages.perform(workspace, first, make("x"))
    again = stages.decide(workspace, "base", {"a": "1"})
    assert (again.reuse, again.reason, again.folder) == (True, "no input changed", folder)
    stages.perform(workspace, again, lambda scratch: pytest.fail("built again"))
    assert [r.outcome for r in log.records()] == ["built", "reused"]


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ({"a": "2", "b": "1"}, "a changed"),
        ({"a": "2", "b": "2"}, "a changed and 1 more"),
        ({"a": "1", "b": "1", "c": "1"}, "c is new"),
        ({"a": "1"}, "b is gone"),
    ],
)
def test_the_reason_names_what_changed(workspace: Workspace, after: dict[str, str], reason: str) -> None:
    stages.perform(workspace, stages.decide(workspace, "base", {"a": "1", "b": "1"}), make("x"))
    assert stages.decide(workspace, "base", after).reason == reason


def test_key_does_not_depend_on_order(workspace: Workspace) -> None:
    one = stages.decide(workspace, "base", {"a": "1", "b": "2"})
    other = stages.decide(workspace, "base", {"b": "2", "a": "1"})
    assert one.key == other.key


def test_a_failure_leaves_nothing(workspace: Workspace) -> None:
    def fail(scratch: Path) -> None:
        files.write(scratch / "half", "x")
        raise OSError("disk full")

    decision = stages.decide(workspace, "base", {"a": "1"})
    with pytest.raises(OSError, match="disk full"):
        stages.perform(workspace, decision, fail)
    assert list(workspace.stage("base").iterdir()) == []
    assert not stages.decide(workspace, "base", {"a": "1"}).reuse


def test_a_missing_output_is_made_anew(workspace: Workspace) -> None:
    folder = stages.perform(workspace, stages.decide(workspace, "base", {"a": "1"}), make("x"))
    (folder / "out").unlink()
    again = stages.decide(workspace, "base", {"a": "1"})
    assert (again.reuse, again.reason) == (False, "out is missing from the earlier result")


def test_changed_bytes_are_refused_and_made_anew(workspace: Workspace) -> None:
    folder = stages.perform(workspace, stages.decide(workspace, "base", {"a": "1"}), make("x"))
    assert stages.checked(folder, "out") == folder / "out"
    (folder / "out").write_text("y")
    with pytest.raises(CorruptArtifact, match="not the file that was recorded"):
        stages.checked(folder, "out")
    assert not stages.decide(workspace, "base", {"a": "1"}).reuse


def test_only_the_newest_results_stay(workspace: Workspace) -> None:
    for value in "12345":
        newest = stages.perform(workspace, stages.decide(workspace, "base", {"a": value}), make(value))
    left = [p for p in workspace.stage("base").iterdir() if p.is_dir()]
    assert len(left) == stages.KEPT_RESULTS
    assert newest in left


def test_a_tree_is_recorded_as_one(workspace: Workspace) -> None:
    def fill(scratch: Path) -> None:
        (scratch / "root/etc").mkdir(parents=True)
        (scratch / "root/etc/file").touch()
        (scratch / "beside").mkdir()
        (scratch / "beside/out").write_text("x")

    folder = stages.perform(workspace, stages.decide(workspace, "chroot", {"a": "1"}, trees=["root"]), fill)
    assert list(files.read_json(folder / stages.RECORD)["outputs"]) == ["beside/out"]
    assert stages.decide(workspace, "chroot", {"a": "1"}, trees=["root"]).reuse
    assert stages.checked_tree(folder, "root") == folder / "root"
    shutil.rmtree(folder / "root")
    again = stages.decide(workspace, "chroot", {"a": "1"}, trees=["root"])
    assert (again.reuse, again.reason) == (False, "root is missing from the earlier result")


def test_a_tree_that_changed_on_disk_is_made_anew(workspace: Workspace) -> None:
    def fill(scratch: Path) -> None:
        (scratch / "root").mkdir()
        (scratch / "root/file").write_text("right")

    folder = stages.perform(workspace, stages.decide(workspace, "chroot", {"a": "1"}, trees=["root"]), fill)
    facts = (folder / "root/file").stat()
    (folder / "root/file").write_text("wrong")
    os.utime(folder / "root/file", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(CorruptArtifact, match=r"what is in .*/root is not what was recorded"):
        stages.checked_tree(folder, "root")
    assert not stages.decide(workspace, "chroot", {"a": "1"}, trees=["root"]).reuse
