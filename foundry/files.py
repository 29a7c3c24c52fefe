"""Small verbs on files: digests, atomic writes, folders that appear only when whole."""

from __future__ import annotations

import errno
import hashlib
import json
import lzma
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundry.errors import FoundryError

# What xz takes to unpack what its highest preset has packed (xz(1)).
_XZ_MEMORY = 128 << 20
_BLOCK = 1 << 20


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def disk_digest(path: Path) -> str:
    """A digest of what a disk holds, in hex: the sha256 of its size and, with its place, of each MiB not all of zeros.

    To a disk, a hole and zeros are the same. A sha256 of the file would take seconds for the holes alone.
    """
    found = hashlib.sha256()
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        found.update(size.to_bytes(8, "big"))
        at = 0
        while (at := _next_data(stream.fileno(), at)) < size:
            stream.seek(at)
            block = stream.read(_BLOCK)
            if block.strip(b"\0"):
                found.update(at.to_bytes(8, "big") + block)
            at += _BLOCK
    return found.hexdigest()


def _next_data(descriptor: int, at: int) -> int:
    """Where the first block from at on begins that is not a hole; without one, the file's size."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA) // _BLOCK * _BLOCK
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(descriptor).st_size


def folder_digest(folder: Path) -> str:
    """A digest of all below a folder, in hex: names, kinds, modes, owners, times, attributes, links, contents."""
    found = hashlib.sha256()
    for path in sorted([folder, *folder.rglob("*")], key=os.fsencode):
        facts = path.lstat()
        numbers = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_rdev, facts.st_mtime_ns)
        more = [f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}" for name in _attributes(path)]
        if stat.S_ISLNK(facts.st_mode):
            more.append(str(path.readlink()))
        elif stat.S_ISREG(facts.st_mode):
            more.append(sha256(path))
        row = "\0".join([str(path.relative_to(folder)), *map(str, numbers), *more])
        found.update(os.fsencode(f"{row}\n"))
    return found.hexdigest()


def _attributes(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def sha256_text(text: str) -> str:
    """The sha256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> str:
    """value as JSON with sorted keys and no spaces: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def tree_digests(paths: Iterable[Path], base: Path) -> dict[str, str]:
    """Name (relative to base) to "mode sha256" of every file in paths, folders walked; caches left out."""
    found: dict[str, str] = {}
    for path in paths:
        members = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for member in members:
            if "__pycache__" in member.parts or member.suffix == ".pyc":
                continue
            mode = "x" if os.access(member, os.X_OK) else "-"
            found[str(member.relative_to(base))] = f"{mode} {sha256(member)}"
    return found


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a text file atomically: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


LARGEST_JSON = 64 * 2**20


def read_json(path: Path) -> Any:
    """The value of a JSON file; None where there is no such file, or it is not JSON that anybody would write."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_JSON:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes target in one rename when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    scratch.chmod(0o755)
    try:
        yield scratch
        if target.exists():
            shutil.rmtree(target)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def own_prefix() -> str:
    """How names of this process's folders in /tmp begin: with its pid, which tells a leftover from what is in use."""
    return f"pf-{os.getpid()}-"


def need_space(folder: Path, bytes_needed: int, what: str) -> None:
    """Raise a FoundryError unless folder's file system has bytes_needed free for what."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise FoundryError(
            f"{what}: {folder} has {human(free)} free and needs {human(bytes_needed)}",
            hint="free some space (`./inv clean` removes old builds), or set FOUNDRY_BUILD to a folder elsewhere",
        )


def out_of_space(error: BaseException, folder: Path) -> FoundryError | None:
    """What to tell the user about an error that says that the disk is full; None for any other error.

    folder: where a run writes, for an error that does not name a file.
    """
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return FoundryError(
        f"{error.strerror}: {error.filename or folder}",
        hint="free some space (`./inv clean` removes old builds), or set FOUNDRY_BUILD to a folder on a larger disk",
    )


def human(size: float) -> str:
    """Bytes for people, in decimal units: "281.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def unxz(data: bytes, size: int) -> bytes | None:
    """What xz has packed, if it is no more than size bytes, and nothing follows it."""
    try:
        reader = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        found = reader.decompress(data, max_length=size + 1)
        return found if reader.eof and not reader.unused_data and len(found) <= size else None
    except (lzma.LZMAError, EOFError):
        return None
