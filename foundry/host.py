"""What the build host must have: requirements/host.txt, which ./inv, doctor and every build read."""

from __future__ import annotations

from pathlib import Path


def commands(listing: Path) -> list[tuple[str, str]]:
    """The (Debian package, command) pairs of requirements/host.txt that have a command."""
    rows = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [(row[0], row[1]) for row in rows if len(row) == 2 and row[1] != "-"]
