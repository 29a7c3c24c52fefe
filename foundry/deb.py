"""The deb stage: patroni-venv and patroni-node, built in a clean chroot of the target, with no network.

The packages are separate results: the venv changes seldom and takes long, the node's program the reverse.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundry import archive, bootstrap, files, log, run, stages, threads, wheels
from foundry.workspace import Workspace

# Nothing reads either of them, and man-db would index the former.
CHROOT_RULES = ("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*")
# Relative to the build folder: a mount option cannot hold a comma or a colon, which that folder's own path may have.
_ENTER = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
mount -t proc proc "$4/proc"
shift 3
exec chroot "$@"
"""
LOCKS = ("patroni-build.txt", "patroni.txt")
# Debian 12's; the chroot holds no other.
TARGET_PYTHON = (3, 11)
VENV_SOURCES = ("debian", "requirements")
NODE_SOURCES = ("debian", "patroni_node", "files", "templates/etc")


@dataclass(frozen=True)
class _Chroot:
    """A file system of the target to build packages over. fresh: this very run made it and took its digest."""

    folder: Path
    fresh: bool

    @property
    def tree(self) -> Path:
        return self.folder / bootstrap.TREE

    def check(self) -> None:
        """Raise CorruptArtifact unless it is what it was made as."""
        if not self.fresh:
            stages.checked_tree(self.folder, bootstrap.TREE)


@dataclass(frozen=True)
class Debs:
    """The built packages, and Consul's beside them where foundry.yml asks for it."""

    venv: Path
    node: Path
    consul: Path | None

    def all(self) -> list[Path]:
        return [p for p in (self.venv, self.node, self.consul) if p]


def build(
    packages: archive.Archive,
    suite: str,
    workspace: Workspace,
    *,
    venv_is_built: Callable[[Path], object] | None = None,
) -> Debs:
    """Build both packages, or find them built. Raises CommandFailed, CorruptArtifact, FetchError.

    venv_is_built: called with patroni-venv's path as soon as it is there, for whoever need not wait for the other.
    """
    chroot = _chroot(packages, suite, workspace)
    locks = [workspace.requirements / name for name in LOCKS]

    def venv() -> Path:
        path = _package("patroni-venv", VENV_SOURCES, "--build=any", chroot, workspace, locks=locks)
        if venv_is_built:
            venv_is_built(path)
        return path

    found, node = threads.together(
        venv, lambda: _package("patroni-node", NODE_SOURCES, "--build=all", chroot, workspace, locks=[])
    )
    return Debs(found, node, packages.consul)


def venv_key(packages: archive.Archive, workspace: Workspace) -> str:
    """What patroni-venv is made of, as one digest: known before it is built."""
    chroot = stages.decide(workspace, "chroot", _chroot_inputs(packages), trees=[bootstrap.TREE])
    return stages.decide(workspace, "patroni-venv", _inputs(VENV_SOURCES, chroot.key, workspace)).key


def _chroot_inputs(packages: archive.Archive) -> dict[str, str]:
    return {
        **{f"package {p.name}": f"{p.version} {p.sha256}" for p in packages.buildd},
        **stages.recipe(bootstrap, sys.modules[__name__]),
    }


def _inputs(sources: Sequence[str], chroot: str, workspace: Workspace) -> dict[str, str]:
    return {
        **files.tree_digests([workspace.root / s for s in sources], workspace.root),
        **stages.recipe(sys.modules[__name__], wheels),
        "chroot": chroot,
    }


def _chroot(packages: archive.Archive, suite: str, workspace: Workspace) -> _Chroot:
    """A file system of the target with build-essential and our build dependencies, over which packages are built."""
    decision = stages.decide(workspace, "chroot", _chroot_inputs(packages), trees=[bootstrap.TREE])

    def act(scratch: Path) -> None:
        files.need_space(workspace.build, 1_500_000_000, "chroot")
        archive.intact(packages, workspace)
        before = scratch / "before"
        files.write(before / bootstrap.DPKG / "patroni-foundry", "\n".join([*CHROOT_RULES, ""]))
        names = sorted({p.name for p in packages.buildd})
        tree = bootstrap.Tree(suite, names, packages.buildd, before)
        bootstrap.make(tree, scratch / bootstrap.TREE, packages, what="chroot")
        shutil.rmtree(before)

    return _Chroot(stages.perform(workspace, decision, act), fresh=not decision.reuse)


def _package(
    name: str, sources: Sequence[str], kind: str, chroot: _Chroot, workspace: Workspace, *, locks: Sequence[Path]
) -> Path:
    decision = stages.decide(workspace, name, _inputs(sources, stages.key_of(chroot.folder), workspace))

    def act(scratch: Path) -> None:
        found = wheels.fetch(locks, TARGET_PYTHON, workspace)
        work = scratch / "work"
        layer = _Layer(work / "upper", work / "work", work / "root")
        try:
            threads.together(lambda: _build_in(layer, chroot.tree, sources, kind, found, workspace), chroot.check)
            for deb in sorted((layer.upper / "build").glob(f"{name}_*.deb")):
                shutil.copyfile(deb, scratch / deb.name)
        finally:
            run.run(["rm", "-rf", "--one-file-system", work], name="rm", cleaning=True)

    found = next(stages.perform(workspace, decision, act).glob(f"{name}_*.deb"))
    return stages.checked(decision.folder, found.name) if decision.reuse else found


@dataclass(frozen=True)
class _Layer:
    """What is written over the chroot's tree (upper), overlayfs's own folder (work), and where both are seen (root)."""

    upper: Path
    work: Path
    root: Path


def _build_in(
    layer: _Layer, tree: Path, sources: Sequence[str], kind: str, found: Sequence[Path], workspace: Workspace
) -> None:
    for folder in (layer.upper, layer.work, layer.root):
        folder.mkdir(parents=True)
    source = layer.upper / "build" / "source"
    for folder_name in sources:
        shutil.copytree(
            workspace.root / folder_name,
            source / folder_name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        )
    offered = layer.upper / "build" / "wheels"
    offered.mkdir()
    for wheel in found:
        shutil.copyfile(wheel, offered / wheel.name)
    entered = _entered(layer, tree, workspace)
    log.activity("dpkg-buildpackage")
    command = ["env", "--chdir=/build/source", "dpkg-buildpackage", "-us", "-uc", kind]
    run.run(
        run.contained([*entered, *command], network=False),
        cwd=workspace.build,
        env={"FOUNDRY_WHEELS": "/build/wheels", "HOME": "/nonexistent"},
        name="dpkg-buildpackage",
    )


def _entered(layer: _Layer, tree: Path, workspace: Workspace) -> list[str]:
    """The words before a command that is to run in the chroot: over the tree where the kernel can, else in a copy."""
    folders = [str(p.relative_to(workspace.build)) for p in (tree, layer.upper, layer.work, layer.root)]
    words = ["sh", "-euc", _ENTER, "sh", *folders]
    tried = run.run(run.contained([*words, "true"]), cwd=workspace.build, name="overlay", check=False)
    if tried.returncode != 0:
        log.activity("copying the chroot: this kernel mounts no overlay there")
        run.run(["cp", "-a", "--reflink=auto", "--no-clobber", f"{tree}/.", layer.upper], name="cp")
        words = ["sh", "-euc", 'mount -t proc proc "$1/proc"; exec chroot "$@"', "sh", folders[1]]
    return words
