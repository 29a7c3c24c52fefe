"""What this machine was given: memory, CPUs, and the size of the disk that the data lies on."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
DATA = "var/lib/postgresql/15/main"
# A gap larger than this between what is given and what the kernel has is a lie, or memory that can be taken away.
CREDIBLE = 1.25
ROUNDING = 64 * MIB


@dataclass(frozen=True)
class Hardware:
    """memory, disk: bytes; disk is None where it cannot be told."""

    memory: int
    cpus: int
    disk: int | None = None


def read(root: Path = Path("/")) -> Hardware:
    """Return what the machine below root has.

    Memory is what the machine was given, and not what the kernel left of it: formulas for "a 4 GB machine" mean that
    number. The firmware's table says it (SMBIOS specification 3.6, section 7.18, Memory Device); else the kernel's
    blocks of memory that are online; else its own total, rounded up. None of them may be far above that total, and a
    limit of the control group is one.
    """
    total = _total(root)
    given = next((size for size in (_smbios(root), _blocks(root)) if _credible(size, total)), None)
    memory = given or -(-total // ROUNDING) * ROUNDING
    limit = _number(root / "sys/fs/cgroup/memory.max")
    return Hardware(min(memory, limit) if limit else memory, _cpus(root), _disk(root))


def _credible(size: int | None, total: int) -> bool:
    if size is None:
        return False
    # Small machines lose a larger part to the kernel and to its crash dump.
    return total == 0 or total <= size <= total * CREDIBLE + 256 * MIB


def _total(root: Path) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _smbios(root: Path) -> int | None:
    """The sum of the memory devices. Size is a word at 0Ch: 0 an empty socket, FFFFh unknown, 7FFFh see 1Ch."""
    sizes = []
    for path in sorted((root / "sys/firmware/dmi/entries").glob("17-*/raw")):
        raw = _bytes(path)
        if len(raw) < 0x0E:
            continue
        (size,) = struct.unpack_from("<H", raw, 0x0C)
        if size == 0x7FFF and len(raw) >= 0x20:
            sizes.append((struct.unpack_from("<I", raw, 0x1C)[0] & 0x7FFFFFFF) * MIB)
        elif size not in (0, 0xFFFF):
            # Bit 15 tells kilobytes from megabytes.
            sizes.append((size & 0x7FFF) * (1024 if size & 0x8000 else MIB))
    return sum(sizes) or None


def _blocks(root: Path) -> int | None:
    folder = root / "sys/devices/system/memory"
    try:
        block = int(_text(folder / "block_size_bytes").strip() or "0", 16)
    except ValueError:
        return None
    online = sum(_text(path).strip() == "online" for path in folder.glob("memory*/state"))
    return block * online or None


def _cpus(root: Path) -> int:
    listed = _text(root / "sys/devices/system/cpu/online").strip()
    ranges = [part.split("-") for part in listed.split(",") if re.fullmatch(r"\d+(-\d+)?", part)]
    count = sum(int(part[-1]) - int(part[0]) + 1 for part in ranges) or os.cpu_count() or 1
    quota = _text(root / "sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        count = min(count, -(-int(quota[0]) // int(quota[1])))
    return max(1, count)


def _disk(root: Path) -> int | None:
    path = root / DATA
    while not _seen(path) and path != root:
        path = path.parent
    try:
        facts = os.statvfs(path)
    except OSError:
        return None
    return facts.f_blocks * facts.f_frsize or None


def _seen(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # Hidden from others than root and postgres: the folder above it tells the same, unless it is a mount point.
        return False


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    return _bytes(path).decode("ascii", "replace")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
