"""The files of an image before anyone has booted it, read out of the bytes: no mount, no loop device."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from foundry import run
from foundry.errors import CorruptArtifact
from foundry.run import capture

SECTOR = 512
MAX_LINKS = 40  # path_resolution(7)
_ROOT_TYPES = {
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",  # root, x86-64, as the Discoverable Partitions Specification says
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4",  # Linux file system
}
# Who is not root cannot give files away; their contents and modes are read all the same.
_HARMLESS = re.compile(r"^debugfs \d|while changing ownership of|^$")


@dataclass(frozen=True)
class Partition:
    """One partition of a raw disk: offset and size in bytes."""

    number: int
    offset: int
    size: int
    type: str


def raw(image: Path, image_format: str, target: Path) -> Path:
    """Make target the sparse raw disk of image. Raises CommandFailed, ToolMissing."""
    run.find("qemu-img", "qemu-utils")
    target.parent.mkdir(parents=True, exist_ok=True)
    words: list[str | Path] = ["qemu-img", "convert", "-q", "-m", "4", "-W", "-f", image_format]
    words += ["-O", "raw", image, target]
    run.run(words, name="tree-convert", what=f"{image.name}: qemu-img convert")
    return target


def partitions(disk: Path) -> list[Partition]:
    """The partitions of a raw disk, in the order of its table. Raises CorruptArtifact when it has none."""
    run.find("sfdisk", "fdisk")
    try:
        table = json.loads(capture(["sfdisk", "--json", disk], name="tree-sfdisk", what=f"{disk.name}: sfdisk"))
        unit = int(table["partitiontable"].get("sectorsize", SECTOR))
        rows = table["partitiontable"]["partitions"]
    except (ValueError, KeyError) as error:
        raise CorruptArtifact(f"{disk.name} has no partition table that can be read: {error}") from error
    return [Partition(n, r["start"] * unit, r["size"] * unit, r["type"].upper()) for n, r in enumerate(rows, 1)]


def root(disk: Path) -> Partition:
    """The partition that holds the root file system: the largest of a Linux type. Raises CorruptArtifact."""
    found = [p for p in partitions(disk) if p.type in _ROOT_TYPES]
    if not found:
        raise CorruptArtifact(f"{disk.name} has no partition for a Linux root file system")
    return max(found, key=lambda p: p.size)


def dump(disk: Path, source: str, target: Path) -> Path:
    """Copy the folder source of the root file system on a raw disk into the folder target, and return target.

    Modes, times and symbolic links are kept, owners too where this user may set them; devices and sockets are left out.
    Raises CorruptArtifact when something cannot be read.
    """
    run.find("debugfs", "e2fsprogs")
    target.mkdir(parents=True, exist_ok=True)
    where = f"{disk}?offset={root(disk).offset}"
    result = run.run(["debugfs", "-R", f'rdump "{source}" "{target}"', where], name="tree-debugfs", on_line=None)
    wrong = [line for line in result.output.splitlines() if not _HARMLESS.search(line)]
    if wrong:
        raise CorruptArtifact(
            f"{disk.name}: {source} cannot be read: {wrong[0]}", details="\n".join(wrong[:4]), log=result.log
        )
    return target


def inside(root: Path, name: str) -> Path | None:
    """Where a path of the image lies below root, its symbolic links followed as the image itself would follow them.

    None where there is nothing, or where links go round. Nothing outside of root is ever looked at.
    """
    left, at, links = name.split("/"), root, 0
    while left:
        part = left.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            at = at if at == root else at.parent
            continue
        path = at / part
        if not path.is_symlink():
            if not path.exists():
                return None
            at = path
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        target = str(path.readlink())
        at = root if target.startswith("/") else at
        left = target.split("/") + left
    return at


def boot_files(disk: Path, target: Path) -> tuple[Path, Path | None]:
    """The kernel and, if there is one, the initrd of a raw disk, copied below target. Raises CorruptArtifact."""
    folder = dump(disk, "/boot", target) / "boot"
    kernels = sorted(folder.glob("vmlinuz-*"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
    if not kernels:
        raise CorruptArtifact(f"{disk.name} has no kernel in /boot")
    initrd = folder / kernels[-1].name.replace("vmlinuz-", "initrd.img-")
    return kernels[-1], initrd if initrd.exists() else None
