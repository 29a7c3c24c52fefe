"""Whether the process that something was made for is still there."""

from __future__ import annotations

from pathlib import Path

from foundry.workspace import HOST_BOOT_ID, PROCESSES


def started(pid: int, processes: Path = PROCESSES) -> str | None:
    """When a process was started: the host's boot, and ticks since then (proc(5), stat, field 22); None without one.

    With it a number that another process has by now is not taken for the old one. One that has ended, and whose end
    nobody has asked for yet, is none.
    """
    try:
        fields = (processes / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else f"{HOST_BOOT_ID.read_text(encoding='ascii').strip()} {fields[19]}"
