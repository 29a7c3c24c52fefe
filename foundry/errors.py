"""What can go wrong, in the words of the person who reads it: what happened, where, and what to do next.

Library code raises these; only tasks.py prints them and exits with their code.
"""

from __future__ import annotations

from pathlib import Path


class FoundryError(Exception):
    """A failure that a user can act on.

    brief: one line that says what happened and where.
    details: more lines (a command's last output, a list of bad keys), or None.
    log: the file that holds the whole story, or None.
    hint: what to do next, or None.
    """

    code = 1

    def __init__(
        self,
        brief: str,
        *,
        details: str | None = None,
        log: Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.log = log
        self.hint = hint


class ConfigError(FoundryError):
    """foundry.yml or a command line option cannot be used as it is."""

    code = 2


class ToolMissing(FoundryError):
    """The host lacks a program or a feature that this stage needs."""

    code = 3


class FetchError(FoundryError):
    """A registry did not answer, or what it sent is not what was pinned."""

    code = 4


class CommandFailed(FoundryError):
    """A command exited with another code than 0, was killed, or took too long."""

    code = 5


class CorruptArtifact(FoundryError):
    """A file that an earlier stage made no longer has the digest that was recorded for it."""

    code = 6


class GuestError(FoundryError):
    """A machine did not come up, or went away."""

    code = 7


class VerifyError(FoundryError):
    """The image was booted and did not pass."""

    code = 8


class Cancelled(FoundryError):
    """The user or the system interrupted the run."""

    code = 130
