"""WAL archiving and backups by Debian's pgBackRest.

Sources: pgbackrest(1) of version 2.45 for its options; Patroni's manual, "Replica imaging and bootstrap" and
"YAML configuration settings", PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patroni_node.errors import NodeError, Problem
from patroni_node.model import PgBackRest, Settings
from patroni_node.paths import POSTGRESQL_MAJOR, Paths

HEADER = "# Written by patroni-node from `archive:` of node.yml."
PROGRAM = "usr/bin/pgbackrest"
# pgBackRest makes no backup unless it finds its own name in archive_command (backup.c, error 68).
PUSH = "/usr/libexec/patroni-node/pgbackrest-push"
# An idle server hands over what it has after this, so no more than it is lost with the machine; the tutorial's value.
TIMEOUT = "1800s"


def parameters(wanted: PgBackRest) -> dict[str, str]:
    """Return PostgreSQL's parameters that archive WAL."""
    command = f'{PUSH} {wanted.stanza} "%p"'
    return {"archive_mode": "on", "archive_command": command, "archive_timeout": TIMEOUT}


def patroni_options(wanted: PgBackRest | None) -> dict[str, Any]:
    """Return what patroni.yml's postgresql section says about the archive."""
    if wanted is None:
        return {}
    program = f"pgbackrest --stanza={wanted.stanza}"
    options: dict[str, Any] = {"recovery_conf": {"restore_command": f'{program} archive-get %f "%p"'}}
    if wanted.create_replica:
        options["create_replica_methods"] = ["pgbackrest", "basebackup"]
        options["basebackup"] = {"checkpoint": "fast"}
        # pgBackRest takes no options of Patroni's, and copies only what differs from the backup.
        restore = f"{program} --delta restore"
        options["pgbackrest"] = {"command": restore, "keep_data": True, "no_params": True}
    return options


def configuration(wanted: PgBackRest) -> str:
    """Return the text of pgbackrest.conf."""
    general: dict[str, str | int | bool] = {
        "repo1-path": wanted.repository,
        "repo1-retention-full": wanted.retention,
        # Else a backup waits for the next scheduled checkpoint.
        "start-fast": True,
        # Not /tmp, which PostgreSQL and a shell need not share.
        "lock-path": "/run/postgresql/pgbackrest",
        **wanted.options,
    }
    stanza = {
        "pg1-path": f"/var/lib/postgresql/{POSTGRESQL_MAJOR}/main",
        "pg1-socket-path": "/var/run/postgresql",
    }
    sections: dict[str, Mapping[str, str | int | bool]] = {"global": general, wanted.stanza: stanza}
    return HEADER + "\n" + "\n".join(_section(name, options) for name, options in sections.items())


def _section(name: str, options: Mapping[str, str | int | bool]) -> str:
    words = {True: "y", False: "n"}
    lines = (f"{key}={words[value] if isinstance(value, bool) else value}" for key, value in options.items())
    return f"[{name}]\n" + "\n".join(lines) + "\n"


def require(wanted: Settings, paths: Paths) -> None:
    """Refuse an archive without pgBackRest, and one that would overwrite a configuration which is not ours.

    Raises:
        NodeError: naming what to do.
    """
    if wanted.archive is None:
        return
    if paths.live and not (paths.root / PROGRAM).exists():
        message = "needs pgBackRest, which is not installed: apt install pgbackrest"
        raise NodeError(wanted.document.problem(("archive", "pgbackrest"), message))
    if not ours(paths):
        message = "was not written by patroni-node: move it away, and its options to archive.pgbackrest.options"
        raise NodeError(Problem(message, str(paths.pgbackrest_conf)))


def ours(paths: Paths) -> bool:
    """Whether pgbackrest.conf may be written or removed: it is absent, or an earlier run made it."""
    try:
        return paths.pgbackrest_conf.read_text(encoding="utf-8", errors="replace").startswith(HEADER)
    except FileNotFoundError:
        return True
