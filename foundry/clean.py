"""Remove what no next build would use, or all that was ever built."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from foundry import files, lock
from foundry.errors import FoundryError
from foundry.lab import claim, keeper
from foundry.workspace import MOUNTS, Workspace


@dataclass(frozen=True)
class Cleaned:
    """What was removed, how many bytes that freed, and what stayed where everything was to go."""

    removed: tuple[Path, ...]
    freed: int
    kept: tuple[Path, ...] = ()

    def summary(self) -> list[str]:
        """Lines for a person."""
        freed = f"freed {files.human(self.freed)}" if self.removed else "nothing to remove"
        why = "it tells when a store is put back to an older state; remove it by hand to forget"
        return [*(f"removed {path}" for path in self.removed), *(f"kept {path}: {why}" for path in self.kept), freed]


def clean(workspace: Workspace, *, everything: bool = False) -> Cleaned:
    """Remove leftovers, failures, old logs and all but the newest result of each stage; downloads and images stay.

    everything: remove the whole build folder, images and downloads included, but not what stores have served before:
    nothing could tell that anew.
    Labs that run stay. Raises FoundryError while another run is under way, when something is mounted below the build
    folder, and when everything shall go while a lab runs.
    """
    build = workspace.build
    if not build.is_dir():
        return Cleaned((), 0)
    with lock.held(workspace, "wait until it has ended, or end it with Ctrl-C, then clean"):
        _refuse_mounts(build)
        if everything:
            _refuse_labs(workspace)
        # The lock file itself stays: a run that waits for it must not be left holding one that nobody else sees.
        every = [p for p in sorted(build.iterdir()) if p != workspace.lock]
        kept = tuple(p for p in every if p == workspace.seen) if everything else ()
        doomed = [p for p in every if p not in kept] if everything else list(_stale(workspace, every))
        freed = sum(_size(p) for p in doomed)
        for path in doomed:
            _remove(path)
    return Cleaned(tuple(doomed), freed, kept)


def _stale(workspace: Workspace, every: Iterable[Path]) -> Iterable[Path]:
    kept = (
        workspace.pool,
        workspace.wheels,
        workspace.resolver,
        workspace.keyring,
        workspace.images,
        workspace.publisher,
    )
    for path in every:
        if path == workspace.labs:
            yield from (lab for lab in sorted(path.iterdir()) if not claim.held(lab))
        elif path in (workspace.work, workspace.failed):
            yield path
        elif path.is_dir() and path not in kept:
            used = _of_labs(workspace)
            yield from (p for p in _all_but_newest(path) if not any(image.is_relative_to(p) for image in used))


def _of_labs(workspace: Workspace) -> list[Path]:
    """The disks of labs that run: their nodes are started anew from these."""
    running = (lab for lab in workspace.labs.glob("*") if claim.held(lab))
    plans = (files.read_json(lab / keeper.PLAN) or {} for lab in running)
    return [Path(plan["image"]) for plan in plans if "image" in plan]


def _all_but_newest(store: Path) -> list[Path]:
    folders = sorted((p for p in store.iterdir() if p.is_dir() and not p.is_symlink()), key=lambda p: p.stat().st_mtime)
    scratch = [p for p in folders if p.name.startswith(".")]
    return scratch + [p for p in folders if p not in scratch][:-1]


def _refuse_labs(workspace: Workspace) -> None:
    found = [p.name for p in workspace.labs.glob("*") if claim.held(p)]
    if found:
        raise FoundryError(
            f"clean: {', '.join(found)} of {workspace.labs} is in use, so nothing was removed",
            hint="`./inv cluster-down --all` ends every lab",
        )


def _refuse_mounts(folder: Path) -> None:
    for line in MOUNTS.read_text(encoding="utf-8").splitlines():
        point = line.split()[4].replace("\\040", " ")
        if point.startswith(f"{folder}/"):
            raise FoundryError(f"{point} is mounted, so nothing was removed", hint=f"umount {point}")


def _size(path: Path) -> int:
    """Bytes on disk of path and all below it; a file with several names counts where its last name goes."""
    if path.is_symlink() or path.is_file():
        facts = path.lstat()
        return 512 * facts.st_blocks // max(1, facts.st_nlink)
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                facts = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            total += 512 * facts.st_blocks // max(1, facts.st_nlink)
    return total


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError as error:
        raise FoundryError(f"clean: {error.filename} may not be removed by this user", hint="run it as root") from error
