"""The files of an image before anyone has booted it, read out of the bytes: no mount, no loop device.

The bytes may be anybody's, and what parses them may have a fault that they are made for: all of it runs in the sandbox,
what a qcow2 says of other files is refused, and nothing is read from a file system that is not whole.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from foundry import files, run, sandbox
from foundry.errors import CommandFailed, CorruptArtifact

SECTOR = 512
FORMATS = ("qcow2", "raw")
LARGEST = 2**40
"""Bytes of a disk, as its machine sees it; more is a trap, or nothing that a database node boots from."""
MAX_LINKS = 40  # path_resolution(7)
LARGEST_FILE = 2**32
"""Bytes of a file in an image. A file of which most is a hole takes no room there, and all of it here."""
_ROOT_TYPES = {
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",  # root, x86-64, as the Discoverable Partitions Specification says
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4",  # Linux file system
}
# Who is not root cannot give files away; their contents and modes are read all the same.
_HARMLESS = re.compile(r"^debugfs \d|while changing ownership of|^$")
_PASSES = re.compile(r"^e2fsck \d|^Pass \d|^$")


@dataclass(frozen=True)
class Partition:
    """One partition of a raw disk: offset and size in bytes."""

    number: int
    offset: int
    size: int
    type: str


def size(image: Path, image_format: str, scratch: Path) -> int:
    """The bytes of a disk as its machine sees it. scratch: a folder. Raises CorruptArtifact as raw() does."""
    with sandbox.lent(image, scratch) as seen:
        return int(_info(image, seen, image_format)["virtual-size"])


def raw(image: Path, image_format: str, target: Path) -> Path:
    """Make target the sparse raw disk of image, which nobody but root reads.

    Raises CorruptArtifact for an image that names other files, is encrypted, or is larger than LARGEST; FoundryError
    where there is no room for it; CommandFailed, ToolMissing.
    """
    run.find("qemu-img", "qemu-utils")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".raw.") as folder:
        with sandbox.lent(image, target.parent) as seen:
            _info(image, seen, image_format)
            source = _whole(seen, image_format)
            needed = _said(["qemu-img", "measure", "--output=json", "-O", "raw", source], image, seen)["required"]
            files.need_space(target.parent, int(needed), image.name)
            scratch = Path(folder) / "work"
            scratch.mkdir()
            words: list[str | Path] = [
                "qemu-img",
                "convert",
                "-q",
                "-m",
                "4",
                "-W",
                source,
                "-O",
                "raw",
                scratch / "disk",
            ]
            what = f"{image.name}: qemu-img convert"
            sandbox.run_in(words, name="tree-convert", readable=[seen], writable=[scratch], what=what)
        sandbox.give(scratch / "disk")
        os.replace(scratch / "disk", target)
    return target


_ALONE = (
    "an image can name any file of this host as a part of itself; `qemu-img convert` makes it whole where it was made"
)


def _info(image: Path, seen: Path, image_format: str) -> Mapping[str, Any]:
    """What qemu-img says of an image. Raises CorruptArtifact for what no image of ours is."""
    if image_format not in FORMATS:
        raise CorruptArtifact(f"{image.name}: {image_format} is no format that is read here", hint="qcow2 or raw")
    try:
        found = _said(["qemu-img", "info", "--output=json", _whole(seen, image_format)], image, seen)
    except CommandFailed as error:
        raise CorruptArtifact(
            f"{image.name} cannot be opened by itself", details=error.details, log=error.log, hint=_ALONE
        ) from error
    special = found.get("format-specific", {}).get("data", {})
    named = [row for row in (found.get("backing-filename"), special.get("data-file")) if row]
    if named:
        raise CorruptArtifact(f"{image.name} takes its contents from another file, {named[0]!r}", hint=_ALONE)
    if found.get("encrypted"):
        raise CorruptArtifact(f"{image.name} is encrypted", hint="decrypt it with `qemu-img convert` first")
    if int(found["virtual-size"]) > LARGEST:
        claimed = files.human(int(found["virtual-size"]))
        raise CorruptArtifact(f"{image.name} is a disk of {claimed}; more than {files.human(LARGEST)} is not read")
    return found


def _said(words: list[str], image: Path, seen: Path) -> dict[str, Any]:
    result = sandbox.run_in(words, name="tree-info", readable=[seen], what=f"{image.name}: {words[0]} {words[1]}")
    try:
        return dict(json.loads(result.output))
    except ValueError as error:
        raise CorruptArtifact(f"{image.name}: {words[1]} answered {result.output[:100]!r}", log=result.log) from error


def _whole(seen: Path, image_format: str) -> str:
    """An image as qemu-img opens it: of a known format, with no other file behind it whatever it says itself."""
    return "json:" + json.dumps(
        {
            "driver": image_format,
            "file": {"driver": "file", "filename": str(seen.absolute())},
            **({"backing": None} if image_format == "qcow2" else {}),
        }
    )


def partitions(disk: Path) -> list[Partition]:
    """The partitions of a raw disk, in the order of its table. Raises CorruptArtifact when it has none."""
    run.find("sfdisk", "fdisk")
    try:
        with sandbox.lent(disk, disk.absolute().parent) as seen:
            said = sandbox.run_in(
                ["sfdisk", "--json", seen], name="tree-sfdisk", readable=[seen], what=f"{disk.name}: sfdisk"
            )
        table = json.loads(said.output)["partitiontable"]
        unit = int(table.get("sectorsize", SECTOR))
        rows = enumerate(table["partitions"], 1)
        return [Partition(n, r["start"] * unit, r["size"] * unit, r["type"].upper()) for n, r in rows]
    except (ValueError, KeyError) as error:
        raise CorruptArtifact(f"{disk.name} has no partition table that can be read: {error}") from error


def root(disk: Path) -> Partition:
    """The partition that holds the root file system: the largest of a Linux type. Raises CorruptArtifact."""
    found = [p for p in partitions(disk) if p.type in _ROOT_TYPES]
    if not found:
        raise CorruptArtifact(f"{disk.name} has no partition for a Linux root file system")
    return max(found, key=lambda p: p.size)


def check(disk: Path) -> None:
    """Raise CorruptArtifact unless the root file system of a raw disk is whole.

    debugfs believes what it reads: where a name in a folder is ../../etc/passwd, that is where it writes.
    """
    facts = disk.stat()
    _check(disk, (facts.st_ino, facts.st_mtime_ns, facts.st_size))


@cache
def _check(disk: Path, facts: tuple[int, ...]) -> None:
    run.find("e2fsck", "e2fsprogs")
    with sandbox.lent(disk, disk.absolute().parent) as seen:
        where = f"{seen}?offset={root(disk).offset}"
        result = sandbox.run_in(["e2fsck", "-fn", where], name="tree-e2fsck", readable=[seen], check=False)
    if result.returncode != 0:
        wrong = [line for line in result.output.splitlines() if line and not _PASSES.search(line)]
        raise CorruptArtifact(
            f"{disk.name}: its root file system is not whole, so nothing is read from it",
            details="\n".join(wrong[:4]),
            log=result.log,
            hint="a disk that a machine has booted is whole once that machine was shut down; else ask who made it",
        )


def debugfs(disk: Path, words: list[str | Path], **lent: Any) -> run.Result:
    """Run debugfs on the root file system of a raw disk, once that was found whole. lent: see sandbox.run_in."""
    run.find("debugfs", "e2fsprogs")
    check(disk)
    with sandbox.lent(disk, disk.absolute().parent) as seen:
        where = f"{seen}?offset={root(disk).offset}"
        readable = [seen, *lent.pop("readable", [])]
        return sandbox.run_in(["debugfs", *words, where], readable=readable, **lent)


def dump(disk: Path, source: str, target: Path, *, largest: int = LARGEST_FILE) -> Path:
    """Copy the folder source of the root file system on a raw disk into the folder target, and return target.

    Modes, times and symbolic links are kept, owners are not; devices and sockets are left out. Nobody but root gets
    into target, whatever mode its files bring. largest: bytes of a file. Raises CorruptArtifact when something cannot
    be read, CommandFailed for a file that is larger.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        result = debugfs(
            disk,
            ["-R", f'rdump "{source}" "{target.absolute()}"'],
            name="tree-debugfs",
            writable=[target],
            what=f"{disk.name}: debugfs",
            largest=largest,
        )
    finally:
        # The root of an image brings its own mode.
        target.chmod(0o700)
        if sandbox.root():
            os.chown(target, 0, 0)
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


def confine(root: Path) -> None:
    """Let every symbolic link below root lead to where the image has it, so that whoever reads it stays below root.

    As they are, absolute links and many `..` lead to files of this host. What leads nowhere in the image is removed,
    but for links to nothing below root, and those to /dev/null, which mask units.
    """
    root = root.resolve()
    links = [Path(at, name) for at, dirs, names in os.walk(root) for name in (*dirs, *names)]
    for link in filter(Path.is_symlink, links):
        goal = inside(root, str(link.relative_to(root)))
        if goal is not None:
            text = os.path.relpath(goal, link.parent)
        elif str(link.readlink()) == "/dev/null" or _leads_below(root, link):
            continue
        else:
            text = ""
        link.unlink()
        if text:
            link.symlink_to(text)


def _leads_below(root: Path, link: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        # Round and round; Python 3.13 says OSError.
        return False


def boot_files(disk: Path, target: Path) -> tuple[Path, Path | None]:
    """The kernel and, if there is one, the initrd of a raw disk, copied below target. Raises CorruptArtifact."""
    # Files of the image alone: a link in it could name a file of this host.
    folder = dump(disk, "/boot", target) / "boot"
    found = [] if folder.is_symlink() else [p for p in folder.glob("vmlinuz-*") if p.is_file() and not p.is_symlink()]
    kernels = sorted(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
    if not kernels:
        raise CorruptArtifact(f"{disk.name} has no kernel in /boot")
    initrd = folder / kernels[-1].name.replace("vmlinuz-", "initrd.img-")
    return kernels[-1], initrd if initrd.is_file() and not initrd.is_symlink() else None
