"""Every file of an image as facts that two images can be compared by, read out of the bytes of their disks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from foundry import files, tree
from foundry.errors import CorruptArtifact

MAY_DIFFER: Mapping[str, str] = {}
"""Patterns of paths that differ between two builds of the same packages, and why (docs/reproducibility.md)."""
_ENTRY = re.compile(r"/(\d+)/(\d+)/\d+/\d+/(.*)/\d*/")
_STAT = re.compile(
    r"Type: (?P<kind>.*?)\s+Mode:\s+(?P<mode>\d+).*?User:\s+(?P<user>\d+)\s+Group:\s+(?P<group>\d+)"
    r".*?Links: (?P<links>\d+).*?mtime: 0x(?P<mtime>[0-9a-f]+)",
    re.DOTALL,
)
_ATTRIBUTES = re.compile(r"Extended attributes:\n((?:  .*\n?)+)")
_DEVICE = re.compile(r"Device major/minor number: (\S+)")


@dataclass(frozen=True)
class File:
    """One file. content: its sha256, the target of a link, the number of a device; "" for a folder."""

    kind: str
    mode: str
    owner: str
    links: str
    mtime: int
    attributes: str
    content: str

    def differs(self, other: File) -> list[str]:
        """The names of the facts that are not the same."""
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def of(disk: Path, scratch: Path) -> dict[str, File]:
    """Every file of the root file system of a disk, by its path. scratch: a folder to be made for the work.

    Raises CorruptArtifact, CommandFailed.
    """
    scratch.mkdir(parents=True)
    try:
        raw = tree.raw(disk, disk.suffix.lstrip("."), scratch / "disk.raw")
        inodes = _paths(raw, scratch)
        contents = tree.dump(raw, "/", scratch / "files")
        facts = _facts(raw, sorted(set(inodes.values())), scratch)
        return {path: _file(facts[inode], contents / path.lstrip("/"), inode) for path, inode in inodes.items()}
    finally:
        shutil.rmtree(scratch)


def compare(old: Mapping[str, File], new: Mapping[str, File]) -> list[str]:
    """One line for each path that differs and is not among MAY_DIFFER."""
    lines = []
    for path in sorted({*old, *new}):
        if any(fnmatchcase(path, pattern) for pattern in MAY_DIFFER):
            continue
        before, after = old.get(path), new.get(path)
        if before is None or after is None:
            lines.append(f"{path}: only in the {'second' if before is None else 'first'}")
        elif names := before.differs(after):
            lines.append(f"{path}: {', '.join(names)}")
    return lines


def _debugfs(disk: Path, commands: Sequence[str], scratch: Path) -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines that it answered."""
    script = scratch / "commands"
    files.write(script, "\n".join(commands) + "\n")
    answer = tree.debugfs(disk, ["-f", script], name="listing", readable=[script]).output
    # The first part is what debugfs says of itself.
    parts = re.split(r"^debugfs: (?=ls|stat)", answer, flags=re.MULTILINE)[1:]
    if len(parts) != len(commands):
        raise CorruptArtifact(f"{disk}: debugfs answered {len(parts)} of {len(commands)} commands")
    for command, part in zip(commands, parts, strict=True):
        yield command, part.splitlines()[1:]


def _paths(disk: Path, scratch: Path) -> dict[str, int]:
    """The inode of every path."""
    found, level = {"/": 2}, ["/"]
    while level:
        below = []
        # By number: what a name would say to debugfs is its maker's choice.
        asked = [f"ls -p <{found[folder]}>" for folder in level]
        for folder, (_, lines) in zip(level, _debugfs(disk, asked, scratch), strict=True):
            for entry in filter(None, map(_ENTRY.fullmatch, lines)):
                if entry[1] == "0" or entry[3] in (".", ".."):
                    continue
                path = f"{folder.rstrip('/')}/{entry[3]}"
                found[path] = int(entry[1])
                if entry[2].startswith("04"):
                    below.append(path)
        level = below
    return found


def _facts(disk: Path, inodes: Sequence[int], scratch: Path) -> dict[int, str]:
    asked = [f"stat <{inode}>" for inode in inodes]
    answers = _debugfs(disk, asked, scratch)
    return {inode: "\n".join(lines) for inode, (_, lines) in zip(inodes, answers, strict=True)}


def _file(facts: str, contents: Path, inode: int) -> File:
    found = _STAT.search(facts)
    if not found:
        raise CorruptArtifact(f"debugfs says of inode {inode}: {facts[:200]}")
    attributes, device = _ATTRIBUTES.search(facts), _DEVICE.search(facts)
    content = device[1] if device else ""
    if contents.is_symlink():
        content = str(contents.readlink())
    elif contents.is_file():
        content = files.sha256(contents)
    return File(
        found["kind"],
        found["mode"],
        f"{found['user']}:{found['group']}",
        found["links"],
        int(found["mtime"], 16),
        attributes[1] if attributes else "",
        content,
    )
