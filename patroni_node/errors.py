"""What patroni-node refuses, and how a refusal reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Key = tuple[str | int, ...]

EX_OK = 0
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_OSERR = 71
EX_IOERR = 74
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78
"""Exit codes of sysexits.h, which systemd prints by name (status=78/CONFIG)."""


def printable(text: str) -> str:
    """Return text safe for a console: control characters (a file may hold any) become '?'."""
    return "".join(char if char.isprintable() else "?" for char in text)


def spell(key: Sequence[str | int]) -> str:
    """Return a key path as people write it: ("dcs", "consul", "join", 0) is dcs.consul.join[0]."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, and where (file, line, key) as far as that is known."""

    message: str
    file: str | None = None
    line: int | None = None
    key: Key = ()

    def __str__(self) -> str:
        where = self.file or ""
        if where and self.line is not None:
            where += f":{self.line}"
        parts = [part for part in (where, spell(self.key), self.message) if part]
        return printable(": ".join(parts))


class NodeError(Exception):
    """Configuration that cannot become a safe node; carries every problem that was found."""

    exit_code = EX_CONFIG

    def __init__(self, problems: Problem | str | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        found = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.problems: tuple[Problem, ...] = found
        super().__init__("\n".join(str(problem) for problem in found))


class AddressAbsentError(NodeError):
    """The address asked for is not there (yet): the one refusal that time can cure."""


class InstallError(NodeError):
    """A file could not be written; what was there before is still there."""

    exit_code = EX_IOERR


class UnavailableError(NodeError):
    """Patroni, the store or the cluster is not in a state to work with, or a step has failed."""

    exit_code = EX_UNAVAILABLE


class BusyError(NodeError):
    """Somebody else is at work on the cluster."""

    exit_code = EX_TEMPFAIL


class StillPausedError(NodeError):
    """The cluster could not be taken out of maintenance mode."""

    exit_code = EX_OSERR
