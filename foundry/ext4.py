"""A folder as an ext4 file system whose bytes come from the folder alone: no clock, no order of the host's own folders.

`mke2fs -d` of e2fsprogs 1.47.0 takes names in the order in which the host's file system has them, and their times of
access and change with them. Here debugfs gets every name in its sorted order, and one time for all that has no other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foundry import files, run
from foundry.errors import FoundryError

# e2fsprogs, lib/ext2fs/initialize.c and openfs.c: taken in place of the clock.
CLOCK = "E2FSPROGS_FAKE_TIME"
_SAID = ("debugfs: ", "debugfs 1.", "Allocated inode: ")


@dataclass(frozen=True)
class Place:
    """Where a file system goes: a disk, offset and size in bytes, its UUID and label."""

    disk: Path
    offset: int
    size: int
    uuid: str
    label: str


def build(root: Path, place: Place, epoch: int) -> None:
    """Make the file system from the folder root; nothing in it is newer than epoch.

    Owners, modes, times of modification (whole seconds), extended attributes, hard links and devices are kept.
    Raises CommandFailed, and FoundryError for a file that cannot be written.
    """
    # Features that GRUB 2.06 cannot read are named, because newer e2fsprogs have them on by default.
    options = f"offset={place.offset},lazy_itable_init=1,hash_seed={place.uuid}"
    words: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", place.label, "-U", place.uuid, "-m", "1"]
    words += ["-O", "^orphan_file,^metadata_csum_seed", "-E", options, place.disk, f"{place.size // 1024}k"]
    run.run(words, env={CLOCK: str(epoch)}, name="mke2fs")
    scratch = place.disk.with_suffix(".attributes")
    scratch.mkdir()
    script = place.disk.with_suffix(".debugfs")
    files.write(script, "\n".join(_Script(root, scratch, epoch).lines()) + "\n")
    words = ["debugfs", "-w", "-f", script, f"{place.disk}?offset={place.offset}"]
    result = run.run(words, env={CLOCK: str(epoch)}, name="debugfs", on_line=None)
    # debugfs goes on after an error, and exits 0.
    wrong = [line for line in result.output.splitlines() if line and not line.startswith(_SAID)]
    if wrong:
        raise FoundryError(f"base: writing the root file system: {wrong[0]}", log=result.log)
    script.unlink()
    for path in scratch.iterdir():
        path.unlink()
    scratch.rmdir()


@dataclass
class _Script:
    """The commands for debugfs(8). attributes: a folder for the values of extended attributes."""

    root: Path
    attributes: Path
    epoch: int
    links: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    values: int = 0

    def lines(self) -> Iterator[str]:
        yield from self._folder(self.root, "/", self.root.lstat())
        for names in self.links.values():
            yield f"sif {_quoted(names[0])} links_count {len(names)}"

    def _folder(self, folder: Path, inside: str, facts: os.stat_result) -> Iterator[str]:
        yield f"cd {_quoted(inside)}"
        below = []
        for entry in sorted(os.scandir(folder), key=lambda e: os.fsencode(e.name)):
            found = entry.stat(follow_symlinks=False)
            path = f"{inside.rstrip('/')}/{entry.name}"
            if stat.S_ISDIR(found.st_mode):
                # mke2fs has made this one.
                if path != "/lost+found":
                    yield f"mkdir {_quoted(entry.name)}"
                below.append((Path(entry.path), path, found))
            else:
                yield from self._file(Path(entry.path), entry.name, path, found)
        for child, path, found in below:
            yield from self._folder(child, path, found)
        yield f"cd {_quoted(inside)}"
        yield from self._facts(folder, ".", facts, stat.S_IFDIR | 0o755)

    def _file(self, source: Path, name: str, path: str, facts: os.stat_result) -> Iterator[str]:
        if facts.st_nlink > 1:
            same = self.links.setdefault((facts.st_dev, facts.st_ino), [])
            same.append(path)
            if len(same) > 1:
                yield f"ln {_quoted(same[0])} {_quoted(name)}"
                return
        made = facts.st_mode
        if stat.S_ISREG(made):
            yield f"write {_quoted(str(source))} {_quoted(name)}"
        elif stat.S_ISLNK(made):
            yield f"symlink {_quoted(name)} {_quoted(str(source.readlink()))}"
        elif stat.S_ISCHR(made) or stat.S_ISBLK(made):
            kind = "c" if stat.S_ISCHR(made) else "b"
            yield f"mknod {_quoted(name)} {kind} {os.major(facts.st_rdev)} {os.minor(facts.st_rdev)}"
            made = 0
        elif stat.S_ISFIFO(made):
            yield f"mknod {_quoted(name)} p"
            made = 0
        else:
            raise FoundryError(f"base: {path} is a socket, which has no place in an image")
        yield from self._facts(source, name, facts, made)

    def _facts(self, source: Path, name: str, facts: os.stat_result, made: int) -> Iterator[str]:
        """What debugfs has not set by itself; made: the mode that it has given the file, 0 if unknown."""
        target = _quoted(f"./{name}")
        if facts.st_mode != made:
            yield f"sif {target} mode 0{facts.st_mode:o}"
        if facts.st_uid:
            yield f"sif {target} uid {facts.st_uid}"
        if facts.st_gid:
            yield f"sif {target} gid {facts.st_gid}"
        if int(facts.st_mtime) < self.epoch:
            yield f"sif {target} mtime @{int(facts.st_mtime)}"
        for attribute in sorted(os.listxattr(source, follow_symlinks=False)):
            self.values += 1
            value = self.attributes / str(self.values)
            value.write_bytes(os.getxattr(source, attribute, follow_symlinks=False))
            yield f"ea_set -f {_quoted(str(value))} {target} {attribute}"


def _quoted(text: str) -> str:
    """A word as debugfs reads it (e2fsprogs, lib/ss/parse.c)."""
    if "\n" in text:
        raise FoundryError(f"base: there is a line break in the name {text!r}")
    return '"' + text.replace('"', '""') + '"'
