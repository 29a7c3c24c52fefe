"""Control groups of a container's own: two systemds in one group stop and remove each other's services.

systemd-nspawn gives its guest the group that it was started in itself (systemd-nspawn(1), --keep-unit), so it is put
into one of its own before: in cgroup2, and in systemd's own hierarchy where the host has both (cgroups(7)).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from foundry.errors import GuestError
from foundry.machine import owner
from foundry.workspace import CGROUPS, OWN_CGROUPS, PROCESSES

PATIENCE = 5.0
_NAME = re.compile(r"pf-(\d+)-[0-9a-f]{6}-\d+")


def make(name: str) -> list[Path]:
    """Make empty groups of that name; returns their folders. Raises GuestError where the host has none to give."""
    remove(name)
    found = [parent / name for parent in _parents()]
    try:
        for folder in found:
            folder.mkdir()
    except OSError as error:
        raise GuestError(
            f"no control group can be made: {error}", hint="containers need a /sys/fs/cgroup that root may write to"
        ) from error
    return found


def remove(name: str) -> None:
    """Remove the groups of that name, once what was killed in them has ended; does nothing where there are none."""
    deadline = time.monotonic() + PATIENCE
    for parent in _parents():
        while (parent / name).is_dir() and not _removed(parent / name) and time.monotonic() < deadline:
            time.sleep(0.02)


def sweep() -> None:
    """Remove what a run that was killed has left, once the last of its processes has ended."""
    for name in {folder.name for parent in _parents() for folder in parent.glob("pf-*")}:
        found = _NAME.fullmatch(name)
        if found and not owner.started(int(found[1]), PROCESSES):
            remove(name)


def freeze(name: str, *, frozen: bool, seconds: float = PATIENCE) -> None:
    """Stop every process of a group between two instructions, or let all go on. Raises GuestError.

    None of them notices, as none of a virtual machine's does when that is paused (cgroups(7), cgroup.freeze).
    """
    folder = next((p / name for p in _parents() if (p / name / "cgroup.freeze").exists()), None)
    if folder is None:
        raise GuestError(f"{name}: this host cannot freeze a container", hint="it needs cgroup2 and Linux 5.2")
    (folder / "cgroup.freeze").write_text(f"{frozen:d}", encoding="ascii")
    deadline = time.monotonic() + seconds
    while f"frozen {frozen:d}" not in (said := (folder / "cgroup.events").read_text(encoding="ascii")):
        if time.monotonic() > deadline:
            raise GuestError(f"{name}: not frozen={frozen} within {seconds:.0f} s", details=said)
        time.sleep(0.01)


def _parents() -> Iterable[Path]:
    """The folders of this process' own groups in the hierarchies in which a systemd keeps its services."""
    for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "name=systemd":
            yield CGROUPS / "systemd" / path.lstrip("/")
        elif not controllers:
            both = CGROUPS / "unified"
            yield (both if both.is_dir() else CGROUPS) / path.lstrip("/")


def _removed(folder: Path) -> bool:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()
    return not folder.is_dir()
