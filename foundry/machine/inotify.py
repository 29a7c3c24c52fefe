"""Whether this host lets one more systemd watch its files: where it does not, a container hangs at its start."""

from __future__ import annotations

from pathlib import Path

from foundry.errors import ToolMissing
from foundry.workspace import INOTIFY_LIMIT, PROCESSES

PER_CONTAINER = 8
"""Of root's own: what a node with all its services was seen to use, and one more."""


def require_room(count: int = 1) -> None:
    """Raise ToolMissing unless as many containers can still be started.

    The limit is one for all processes of a user (inotify(7), /proc interfaces), and root in a container is root.
    """
    limit = int(INOTIFY_LIMIT.read_text(encoding="ascii"))
    used = instances()
    if limit - used < PER_CONTAINER * count:
        raise ToolMissing(
            f"this host's kernel lets root have {limit} inotify instances, {used} are in use, and {count} containers"
            f" need {PER_CONTAINER * count} more",
            hint="sysctl -w fs.inotify.max_user_instances=1024   (to keep it: a file in /etc/sysctl.d)",
        )


def instances(processes: Path = PROCESSES) -> int:
    """How many inotify instances root's processes have."""
    found = 0
    for folder in processes.glob("[0-9]*/fd"):
        try:
            if _owner(folder) == 0:
                found += sum(str(entry.readlink()) == "anon_inode:inotify" for entry in folder.iterdir())
        except OSError:
            # It has ended meanwhile.
            continue
    return found


def _owner(folder: Path) -> int:
    return folder.stat().st_uid
