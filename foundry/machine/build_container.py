"""A container in which an image is built: systemd-nspawn over the disk itself, which keeps what its guest writes.

It boots in two seconds where an emulated machine needs twenty, from the same disk, to the same systemd. Packer speaks
to its sshd in its network namespace, which has a loopback and nothing else: no port of this host leads there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foundry import disk, run
from foundry.errors import CommandFailed, GuestError, ToolMissing
from foundry.machine import cgroups, inotify, wait
from foundry.machine.netns import Network
from foundry.run import Process

NAME = "golden"
OFF_SECONDS = 90.0
# The guest's root may mount and unmount, as install.sh and fstrim do: what runs there are packages that this host's
# mmdebstrap runs the scripts of as root as well.
_START = """
mount -o "loop,offset=$1" "$2" root
console=$3 space=$4
shift 4
# 0 is whoever writes it.
while [ "$1" != -- ]; do
    echo 0 >"$1/cgroup.procs"
    shift
done
shift
code=0
nsenter --net="$space" "$@" </dev/null >>"$console" 2>&1 || code=$?
umount root
exit "$code"
"""


@dataclass(frozen=True)
class Guest:
    """What boots. disk: raw, written to. credential: a file, given as tmpfiles.extra (systemd-tmpfiles(8)).

    folder: an empty one of its own. lent: a folder of folder's that the guest may read, at the path inside.
    words: of its kernel command line, which systemd in a container takes from its own. seconds: until sshd answers.
    """

    disk: Path
    folder: Path
    credential: Path
    lent: tuple[str, str]
    words: Sequence[str]
    console: Path
    seconds: float


def obstacle() -> str | None:
    """Why this host, which may be a container itself, can boot none; None where it can."""
    try:
        run.find("systemd-nspawn", "systemd-container")
        run.run(["losetup", "--find"], name="losetup", what="losetup --find", on_line=None)
        inotify.require_room()
        name = f"pf-{os.getpid()}-000000-0"
        cgroups.make(name)
        cgroups.remove(name)
    except (CommandFailed, GuestError, ToolMissing, OSError) as error:
        return str(error)
    return None


@contextmanager
def booted(guest: Guest) -> Iterator[Path]:
    """Boot a disk; yields the path of the network namespace in which its sshd answers at 127.0.0.1.

    Within the block somebody has to tell it to switch itself off; the disk can be read after it.
    Raises GuestError when it does not come up or does not end.
    """
    run.find("systemd-nspawn", "systemd-container")
    inotify.require_room()
    (guest.folder / "root").mkdir()
    with Network() as network:
        space = network.attach(NAME, ())
        try:
            with Process(_words(guest, space), name=f"nspawn-{NAME}", cwd=guest.folder) as process:
                process.follow()
                _wait(process, guest, lambda: _answers(space), "waiting for ssh", guest.seconds)
                yield space
                _wait(process, guest, lambda: process.poll() is not None, "going down", OFF_SECONDS)
                if code := process.poll():
                    raise GuestError(
                        f"{NAME}: systemd-nspawn exited {code}", details=wait.console_tail(guest.console) or None
                    )
        finally:
            cgroups.remove(space.name)


def _words(guest: Guest, space: Path) -> list[str]:
    source, target = guest.lent
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--boot",
        "--directory=root",
        f"--machine={NAME}",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=read-only",
        # Relative, since a path of the host's may have a colon.
        f"--bind-ro={source}:{target}",
        f"--load-credential=tmpfiles.extra:{guest.credential}",
        *guest.words,
    ]
    begin = [str(disk.root_offset(guest.disk)), str(guest.disk), str(guest.console), str(space)]
    start = ["sh", "-euc", _START, "sh", *begin, *map(str, cgroups.make(space.name)), "--", *nspawn]
    return run.contained(start)


def _answers(space: Path) -> bool:
    words = ["nsenter", f"--net={space}", "bash", "-c", "</dev/tcp/127.0.0.1/22"]
    return run.run(words, name="ssh-golden", on_line=None, check=False).returncode == 0


def _wait(process: Process, guest: Guest, check: Callable[[], bool], what: str, seconds: float) -> None:
    def dead() -> str | None:
        code = process.poll()
        return f"systemd-nspawn exited {code} {' '.join(process.tail)}".rstrip() if code else None

    wait.until(
        lambda: (check(), None),
        what=f"{NAME}: {what}",
        timeout=seconds,
        dead=dead,
        console=guest.console,
        interval=0.1,
    )
