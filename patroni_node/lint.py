"""Mistakes of a hand-made patroni.yml that Patroni itself takes without a word.

Each check names what goes wrong in a cluster that runs with it. What reads a setting, and when, is Patroni 4.1.5's own
code, named beside the check by file and function.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from patroni_node.errors import Problem
from patroni_node.lint_access import initdb_options, secrets, shut_out, trusted, well_known
from patroni_node.lint_wal import archives, renamed
from patroni_node.patroni_yml import Finding, PatroniYml, at, mapping

PATRONI_KEYS = {
    "scope", "namespace", "bootstrap", "postgresql", "restapi", "ctl", "initdb", "log", "consul", "etcd", "etcd3",
    "zookeeper", "exhibitor", "kubernetes", "raft", "citus", "ttl", "loop_wait",
}  # fmt: skip
NODE_KEYS = {
    "cluster", "address", "networks", "dcs", "secrets", "tuning", "restart", "tls", "callbacks", "archive", "patroni",
}  # fmt: skip
"""Top-level keys that only one kind of file has; `name`, `watchdog` and `tags` are in both."""

_LOCALHOST = re.compile(r"(?:https?://(?:[^/@]*@)?)?localhost(?::\d+)?(?:/.*)?", re.IGNORECASE)
_WATCHDOG = {"require", "required", "auto", "automatic"}
_WATCHDOG_OFF = {"false", "off", "disable", "disabled"}


def looks_like_one(path: Path) -> bool:
    """Tell by its name that a file is meant to be a patroni.yml."""
    return "patroni" in path.name.lower()


def is_one(data: dict[str, Any], path: Path) -> bool:
    """Tell a patroni.yml from a node.yml by its keys, and by its name where they do not say it."""
    patroni, node = bool(PATRONI_KEYS & set(data)), bool(NODE_KEYS & set(data))
    if patroni and node:
        return looks_like_one(path) or ("scope" in data and "cluster" not in data)
    return patroni or (not node and looks_like_one(path))


def findings(given: PatroniYml, path: Path | None = None) -> list[Problem]:
    """Return what is wrong with a patroni.yml, in the order of its lines.

    Args:
        given: the file's content.
        path: the file, to look at who may read it; None for a text that is no file.
    """
    document = given.document
    found = [document.problem(key, message) for check in _CHECKS for key, message in check(document.data)]
    if path is not None:
        mode = path.stat().st_mode
        if mode & stat.S_IROTH and any(True for _ in secrets(document.data)):
            message = "holds passwords, and everybody may read it: chown root:postgres, chmod 0640"
            found.append(Problem(message, str(path)))
        if mode & stat.S_IWOTH:
            message = "may be changed by everybody, and Patroni runs commands that it names: chmod 0640"
            found.append(Problem(message, str(path)))
    return sorted([*given.repeated, *found], key=lambda problem: problem.line or 0)


def _initdb(data: dict[str, Any]) -> Iterator[Finding]:
    """Find a new cluster that gets neither checksums nor UTF8 (postgresql/bootstrap.py, bootstrap and _initdb)."""
    if "initdb" in data:
        message = "is read by nobody here, so a new cluster has neither these options nor data checksums"
        yield ("initdb",), f"{message}: move it below bootstrap:"
    bootstrap = mapping(data, ("bootstrap",))
    taken = bootstrap.get("method") not in (None, "initdb") or mapping(bootstrap, ("dcs", "standby_cluster"))
    if not bootstrap or taken or ("initdb" in data and "initdb" not in bootstrap):
        return
    options = {name: str(value) for _, name, value in initdb_options(bootstrap.get("initdb"))}
    if "data-checksums" not in options:
        message = "does not ask for data checksums, so damaged pages stay unseen: add `- data-checksums`"
        yield ("bootstrap", "initdb"), message
    # Without an encoding, initdb takes the locale's, and without a locale the one of Patroni's environment.
    encoding = options.get("encoding") or options.get("locale", "") + options.get("lc-ctype", "")
    if "utf" not in encoding.lower():
        message = "does not ask for UTF8, and a cluster keeps its encoding for ever: add `- encoding: UTF8`"
        yield ("bootstrap", "initdb"), message


def _old_layout(data: dict[str, Any]) -> Iterator[Finding]:
    """Find credentials where Patroni looked for them once (config.py, "special treatment for old config")."""
    postgresql = mapping(data, ("postgresql",))
    fate = "is passed over, because postgresql.authentication exists"
    if "authentication" not in postgresql:
        fate = "is an old layout, passed over as soon as postgresql.authentication exists"
        if "pg_rewind" not in postgresql:
            fate = "is an old layout, which turns use_pg_rewind off"
    for name in ("superuser", "replication"):
        if isinstance(postgresql.get(name), dict):
            yield ("postgresql", name), f"{fate}: move it to postgresql.authentication.{name}"
    instead = "postgresql.authentication.rewind"
    if isinstance(postgresql.get("pg_rewind"), dict):
        yield ("postgresql", "pg_rewind"), f"is not the user that rewinds, which is the superuser: move it to {instead}"
    if isinstance(postgresql.get("rewind"), dict):
        yield ("postgresql", "rewind"), f"is read by nobody, so the superuser rewinds: move it to {instead}"
    if "pg_rewind" in mapping(data, ("postgresql", "authentication")):
        message = "is read by nobody, so the superuser rewinds"
        yield ("postgresql", "authentication", "pg_rewind"), f"{message}: its name is {instead}"
    for section in ("restapi", "ctl"):
        if at(data, (section, "auth")) is not None:
            message = "is an old form, which authentication beside it overwrites"
            yield (section, "auth"), f"{message}: write {section}.authentication with username and password"


def _watchdog(data: dict[str, Any]) -> Iterator[Finding]:
    """Find a watchdog that is off; without any setting it is automatic (watchdog/base.py, parse_mode)."""
    watchdog = mapping(data, ("watchdog",))
    mode = str(watchdog.get("mode", "automatic")).lower()
    if mode in _WATCHDOG_OFF:
        message = "is off, so a Patroni that hangs leaves a second leader behind (split brain)"
    elif mode not in _WATCHDOG:
        message = "is no mode that Patroni knows, so the watchdog is off, and split brain is possible"
    else:
        return
    yield ("watchdog", "mode"), f"{message}: write automatic, or required"


def _localhost(data: dict[str, Any]) -> Iterator[Finding]:
    for name in ("host", "url"):
        value = at(data, ("consul", name))
        if isinstance(value, str) and _LOCALHOST.fullmatch(value.strip()):
            message = "localhost may be ::1 alone, where the agent does not listen, and Patroni then has no store"
            yield ("consul", name), f"{message}: write 127.0.0.1 instead"


_CHECKS: tuple[Callable[[dict[str, Any]], Iterator[Finding]], ...] = (
    _initdb,
    _old_layout,
    renamed,
    archives,
    trusted,
    shut_out,
    well_known,
    _watchdog,
    _localhost,
)
