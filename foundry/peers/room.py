"""A room: a Debian tree with a peer's tool in it, entered as the root of its own, so that nothing comes onto the host.

Its mounts and processes end with the command that runs in it. Loop devices do not: the kernel keeps them, so a
stand-in for losetup in the room writes down each.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foundry import archive, run
from foundry.run import Result

STAND_INS = Path(__file__).parent / "stand_ins"
"""Programs that every room has in place of Debian's: its kernel may have no partitions of loop devices, and no udev."""
# The kernel's own /dev, so that partitions come and go there, but what a tool makes in it stays in the room.
# pivot_root, since no user namespace begins in a chroot.
_ENTER = """
cd "$1"
mount --bind . "$1"
cd "$1"
mount --bind "$2" work
shift 2
mount -t proc proc proc
echo room >proc/sys/kernel/hostname
echo "127.0.0.1 localhost room" >etc/hosts
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=0755 run run
mkdir run/lock run/shm run/dev run/dev/upper run/dev/work
mount -t overlay -o lowerdir=/dev,upperdir=run/dev/upper,workdir=run/dev/work dev dev
mkdir -p dev/mapper
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs shm dev/shm
pivot_root . mnt
umount -l /mnt
cd /work
exec env -i "$@"
"""


@dataclass(frozen=True)
class Room:
    """root: the tree. work: a folder that is /work in there."""

    root: Path
    work: Path

    def run(self, words: Sequence[str], environment: Mapping[str, str], *, name: str, seconds: float | None) -> Result:
        """Run a command in the room, with these variables and no others, for at most so many seconds.

        Raises CommandFailed. Nothing of it goes on afterwards, however it ends.
        """
        told = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        told |= {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **environment}
        variables = [f"{key}={value}" for key, value in told.items()]
        begin = ["unshare", "--uts", "sh", "-euc", _ENTER, "sh", str(self.root), str(self.work), *variables]
        with loops_end(self.work / "loops"):
            return run.run(run.contained([*begin, *words]), name=name, what=name, timeout=seconds)


def make(folder: Path, suite: str, packages: Sequence[str], sources: Sequence[str]) -> Room:
    """Make a room of a suite with packages from sources (lines of sources.list). Raises CommandFailed."""
    room = Room(folder / "root", folder / "work")
    room.work.mkdir(parents=True, exist_ok=True)
    words = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", archive.READ_AS_ROOT]
    words += ['--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io"]
    words += [f"--include={','.join(['mount', *packages])}", suite, str(room.root), *sources]
    run.run(run.contained(words), name="mmdebstrap", what=f"{folder.name}: mmdebstrap")
    (room.root / "work").mkdir()
    for stand_in in STAND_INS.iterdir():
        shutil.copy(stand_in, room.root / "usr/local/sbin" / stand_in.name)
    return room


def pip(place: Room, wheel: str) -> None:
    """Install a program of the Python index that this host's pip uses, into /opt/tool. The room needs python3-venv."""
    folder = place.work / "pip"
    words = ["/usr/bin/python3", "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    index = run.user_setting("PIP_INDEX_URL")
    environment = {"PIP_INDEX_URL": index} if index else {}
    run.run([*words, "--dest", str(folder), wheel], env=environment, name="pip-download", what=f"pip download {wheel}")
    place.run(["python3", "-m", "venv", "/opt/tool"], {}, name="venv", seconds=None)
    words = ["/opt/tool/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/work/pip", wheel]
    place.run(words, {}, name="pip", seconds=None)


@contextmanager
def loops_end(record: Path) -> Iterator[None]:
    """Detach, at the end, each loop device of a record (a line each: device, inode, device number of the file's disk).

    A device that something else is behind by then is somebody else's.
    """
    try:
        yield
    finally:
        if record.exists():
            mine = {tuple(line.split()) for line in record.read_text(encoding="utf-8").splitlines()}
            words = ["losetup", "--noheadings", "--list", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"]
            said = run.run(words, name="losetup", on_line=None, check=False, cleaning=True).output
            for row in (tuple(line.split()) for line in said.splitlines()):
                if row in mine:
                    words = ["losetup", "--detach", row[0]]
                    run.run(words, name="losetup", on_line=None, check=False, cleaning=True)
            record.unlink()
