"""What a hand-made patroni.yml does to WAL: parameters that were renamed, and archives that are none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from patroni_node.errors import Key, spell
from patroni_node.patroni_yml import PARAMETERS, Finding, mapping

SEGMENT_MB = 16
LEVELS = {"hot_standby": "works for as long as Patroni translates it", "archive": "Patroni passes it over"}
ON = {"on", "true", "yes", "1", "always"}
"""PostgreSQL's words for an archive_mode that is not off, YAML's true included."""

_INSTEAD = 'write archive_mode: "off", or a command that was tried'
_PILES = f"so WAL piles up until the disk is full: {_INSTEAD}"
_NOTHING = re.compile(
    r"""\s*(?:
        (?:(?:/usr)?/bin/)?(?:true|:)(?:\s[^|<>$`]*)?
        | exit(?:\s+0)?
        | cd(?:\s+\.)?
        | (?:(?:/usr)?/bin/)?echo\b[^|<>$`]*
    )?\s*""",
    re.VERBOSE,
)
_FAILURE = re.compile(r"\s*(?:(?:(?:/usr)?/bin/)?false|exit\s+[1-9]\d*)\s*")
_NEXT_COMMAND = re.compile(r"&&|\|\||;|\n")
_COMMENT = re.compile(r"(?:^|\s)#.*")


def renamed(data: dict[str, Any]) -> Iterator[Finding]:
    """Find parameters by their old names; PostgreSQL 9.6 and 13 renamed them (their release notes, appendix E).

    Patroni takes both from the cluster's configuration only (config.py, _process_postgresql_parameters).
    """
    for section in PARAMETERS:
        local = section == PARAMETERS[-1]
        where = f" in {spell(PARAMETERS[0])}" if local else ""
        parameters = {name.lower(): (name, value) for name, value in mapping(data, section).items()}
        if "wal_keep_segments" in parameters:
            name, value = parameters["wal_keep_segments"]
            # Patroni's postgresql/config.py, get_server_parameters, multiplies too.
            size = int(value) * SEGMENT_MB if re.fullmatch(r"\d{1,9}", str(value)) else 8 * SEGMENT_MB
            fate = "is not read here" if local else "counts for nothing as soon as wal_keep_size is set too"
            message = f"was removed in PostgreSQL 13, and {fate}: write wal_keep_size: {size}MB{where}"
            yield (*section, name), message
        name, level = parameters.get("wal_level", ("", None))
        if isinstance(level, str) and level in LEVELS:
            fate = "is not read here" if local else LEVELS[level]
            message = f"{level} is a name from before PostgreSQL 9.6, and {fate}: write wal_level: replica{where}"
            yield (*section, name), message


def archives(data: dict[str, Any]) -> Iterator[Finding]:
    """Find WAL that is kept for an archive, or declared archived, and is nowhere."""
    given: dict[str, tuple[Key, Any]] = {}
    for section in PARAMETERS:
        given |= {name.lower(): ((*section, name), value) for name, value in mapping(data, section).items()}
    timeout, seconds = given.get("archive_timeout", ((), None))
    paced = re.match(r"\s*0*[1-9]", str(seconds)) is not None
    mode, value = given.get("archive_mode", ((), None))
    if str(value).strip().lower() not in ON:
        if paced:
            yield timeout, "fills a WAL file at each interval for an archive that is not on: remove it"
        return
    where, command = given.get("archive_command", ((), None))
    library = given.get("archive_library", ((), None))[1]
    if isinstance(library, str) and library.strip():
        return
    if not (isinstance(command, str) and command.strip()):
        yield mode, f"is on without archive_command, {_PILES}"
        if paced:
            yield timeout, "adds a WAL file to that pile at each interval: remove it"
    elif _FAILURE.fullmatch(command):
        yield where, f"always fails, {_PILES}"
    elif all(_NOTHING.fullmatch(part) for part in _NEXT_COMMAND.split(_COMMENT.sub("", command))):
        message = "throws WAL away and calls it archived, so no backup can be restored to a point in time"
        yield where, f"{message}: {_INSTEAD}"
