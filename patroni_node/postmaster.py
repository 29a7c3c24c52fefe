"""Does PostgreSQL run, whatever Patroni does?"""

from __future__ import annotations

from pathlib import Path

from patroni_node.paths import Paths


def runs(paths: Paths, data_dir: str) -> bool:
    """Whether the data directory's postmaster.pid names a process of PostgreSQL's (storage/file "postmaster.pid")."""
    folder = paths.root / data_dir.lstrip("/")
    try:
        number = int((folder / "postmaster.pid").read_text(encoding="utf-8").split("\n")[0])
        return Path(paths.root / "proc" / str(number) / "comm").read_text(encoding="utf-8").strip() == "postgres"
    except (OSError, ValueError):
        return False
