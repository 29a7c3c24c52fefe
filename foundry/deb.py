"""The deb stage: patroni-venv and patroni-node, built in a clean chroot of the target, with no network.

The packages are separate results: the venv changes seldom and takes long, the node's program the reverse.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foundry import archive, files, log, run, stages, threads, wheels
from foundry.workspace import Workspace

CHROOT = "chroot.tar.zst"
LOCKS = ("patroni-build.txt", "patroni.txt")
# Debian 12's; the chroot holds no other.
TARGET_PYTHON = (3, 11)
VENV_SOURCES = ("debian", "requirements")
NODE_SOURCES = ("debian", "patroni_node", "files", "templates/etc")


@dataclass(frozen=True)
class Debs:
    """The built packages, and Consul's beside them where foundry.yml asks for it."""

    venv: Path
    node: Path
    consul: Path | None

    def all(self) -> list[Path]:
        return [p for p in (self.venv, self.node, self.consul) if p]


def build(packages: archive.Archive, suite: str, workspace: Workspace) -> Debs:
    """Build both packages, or find them built. Raises CommandFailed, FetchError."""
    chroot = _chroot(packages, suite, workspace)
    locks = [workspace.requirements / name for name in LOCKS]
    venv, node = threads.together(
        lambda: _package("patroni-venv", VENV_SOURCES, "--build=any", chroot, workspace, locks=locks),
        lambda: _package("patroni-node", NODE_SOURCES, "--build=all", chroot, workspace, locks=[]),
    )
    return Debs(venv, node, packages.consul)


def _chroot(packages: archive.Archive, suite: str, workspace: Workspace) -> Path:
    """A file system of the target with build-essential and our build dependencies, as a tarball."""
    inputs = {
        **{f"package {p.name}": f"{p.version} {p.sha256}" for p in packages.buildd},
        **stages.recipe(sys.modules[__name__]),
    }
    decision = stages.decide(workspace, "chroot", inputs)

    def act(scratch: Path) -> None:
        files.need_space(workspace.build, 1_500_000_000, "chroot")
        archive.intact(packages, workspace)
        names = ",".join(sorted({p.name for p in packages.buildd}))
        command = [
            *("mmdebstrap", "--mode=root", "--variant=required", f"--include={names}", "--dpkgopt=force-unsafe-io"),
            *("--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"),
            archive.READ_AS_ROOT,
            *(suite, str(scratch / CHROOT), packages.line()),
        ]
        # A tarball's tree is made in TMPDIR, where nobody would remove it after a SIGKILL.
        run.run(run.contained(command), env={"TMPDIR": str(scratch)}, name="mmdebstrap", what="chroot: mmdebstrap")

    return stages.perform(workspace, decision, act) / CHROOT


def _package(
    name: str, sources: Sequence[str], kind: str, chroot: Path, workspace: Workspace, *, locks: Sequence[Path]
) -> Path:
    inputs = {
        **files.tree_digests([workspace.root / s for s in sources], workspace.root),
        **stages.recipe(sys.modules[__name__], wheels),
        "chroot": stages.output_digest(chroot.parent, CHROOT),
    }
    decision = stages.decide(workspace, name, inputs)

    def act(scratch: Path) -> None:
        found = wheels.fetch(locks, TARGET_PYTHON, workspace)
        root = scratch / "root"
        try:
            _build_in(root, chroot, sources, kind, found, workspace)
            for deb in sorted((root / "build").glob(f"{name}_*.deb")):
                shutil.copyfile(deb, scratch / deb.name)
        finally:
            run.run(["rm", "-rf", "--one-file-system", root], name="rm")

    folder = stages.perform(workspace, decision, act)
    return next(folder.glob(f"{name}_*.deb"))


def _build_in(
    root: Path, chroot: Path, sources: Sequence[str], kind: str, found: Sequence[Path], workspace: Workspace
) -> None:
    root.mkdir()
    run.run(["tar", "--extract", "--numeric-owner", "--xattrs", "--file", chroot, "--directory", root], name="tar")
    source = root / "build" / "source"
    for folder in sources:
        shutil.copytree(
            workspace.root / folder,
            source / folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        )
    offered = root / "build" / "wheels"
    offered.mkdir()
    for wheel in found:
        shutil.copyfile(wheel, offered / wheel.name)
    log.activity("dpkg-buildpackage")
    command = ["chroot", str(root), "env", "--chdir=/build/source", "dpkg-buildpackage", "-us", "-uc", kind]
    run.run(
        run.contained(command, network=False, proc=root / "proc"),
        env={"FOUNDRY_WHEELS": "/build/wheels", "HOME": "/nonexistent"},
        name="dpkg-buildpackage",
    )
