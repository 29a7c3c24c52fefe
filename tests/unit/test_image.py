from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from foundry import deb, files, image, run
from foundry.workspace import Workspace


def test_the_manifest_tells_what_is_shipped_from_what_only_builds(workspace: Workspace) -> None:
    digests = {}
    for name in ("both.whl", "old.whl", "setuptools.whl", "patroni.whl"):
        files.write(workspace.wheels / name, name)
        digests[name] = files.sha256_text(name)
    files.write_json(workspace.wheels / "known.json", {str(n): name for n, name in enumerate(digests)})
    locked = {"patroni-build.txt": ("both.whl", "setuptools.whl"), "patroni.txt": ("both.whl", "patroni.whl")}
    assert set(locked) == set(deb.LOCKS)
    for lock, names in locked.items():
        lines = [f"{name.partition('.')[0]}==1 --hash=sha256:{digests[name]}" for name in names]
        files.write(workspace.requirements / lock, "\n".join(lines))
    assert image._wheels(workspace) == [
        {"name": "both.whl", "sha256": digests["both.whl"], "shipped": True},
        {"name": "patroni.whl", "sha256": digests["patroni.whl"], "shipped": True},
        {"name": "setuptools.whl", "sha256": digests["setuptools.whl"], "shipped": False},
    ]


@pytest.mark.real_process
def test_a_build_needs_no_git(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The revision of sources that were brought in another way is none."""
    assert image._commit(workspace) is None
    (workspace.root / ".git").mkdir(parents=True)
    really = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **options: None if name == "git" else really(name, **options))
    assert image._commit(workspace) is None


@pytest.mark.real_process
@pytest.mark.skipif(not shutil.which("git"), reason="asks git itself")
def test_a_revision_that_git_does_not_tell_is_none(tmp_path: Path) -> None:
    def git(folder: Path, *words: str) -> str:
        name = ("-c", "user.name=x", "-c", "user.email=x@x")
        return subprocess.run(["git", "-C", folder, *name, *words], check=True, capture_output=True, text=True).stdout

    workspace = Workspace.at(tmp_path / "above" / "project")
    for folder in (workspace.root.parent, workspace.root):
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "-q")
        git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    whole = git(workspace.root, "rev-parse", "HEAD").strip()
    assert image._commit(workspace) == whole
    # Damaged, in a folder of another repository.
    (workspace.root / ".git/HEAD").rename(workspace.root / ".git/HEAD.lost")
    assert image._commit(workspace) is None
    (workspace.root / ".git/HEAD.lost").rename(workspace.root / ".git/HEAD")
    assert image._commit(workspace) == whole
    if os.geteuid() != 0:
        return
    # Somebody else's: git's safe.directory.
    shutil.chown(workspace.root / ".git", 65534)
    shutil.chown(workspace.root, 65534)
    assert image._commit(workspace) is None


def test_a_revision_is_one_word(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.root / ".git").mkdir(parents=True)
    said = run.Result(("git",), 0, "warning: something\nv1-3-gabc-dirty", None)
    monkeypatch.setattr(run, "run", lambda *_, **__: said)
    assert image._commit(workspace) is None
