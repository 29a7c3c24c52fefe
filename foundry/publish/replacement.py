"""Replacing the primary key of a store: the old one names the new one, and that signs as well; see Succession.

Two entries, each by one key. Whoever is killed in between leaves a store that goes on by the old key alone; the same
command again goes on from there.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foundry import gpg
from foundry.config import Config
from foundry.errors import CommandFailed, ConfigError
from foundry.publish import ledger, signing
from foundry.publish.session import Session, session
from foundry.workspace import Workspace

DEFAULT_DAYS = 90


def days_of(text: str) -> int:
    """For how many days both keys sign. text: as a user writes it, "" for the default. Raises ConfigError."""
    if not text:
        return DEFAULT_DAYS
    if not (text.isascii() and text.isdigit()):
        raise _no_days(text)
    return int(text)


def _no_days(given: object) -> ConfigError:
    return ConfigError(f"--days: {given} is none of 1 to {ledger.LARGEST_DAYS}")


def replace_key(
    settings: Config, workspace: Workspace, name: str, *, days: int, to: str | None, accept: str | None = None
) -> list[str]:
    """Let a key replace the one that publishes, in one store; returns lines for a person.

    name: as gpg takes it, or a file with the secret key. days: for how long the old one may sign what is new.
    accept: see trust.
    Raises ConfigError, before anything is written, where either cannot, and as session() does.
    """
    with (
        session(settings, workspace, to, accept=accept) as open_,
        signing.successor(name, settings, open_.scratch) as new,
    ):
        old, line = open_.key.fingerprint, open_.seen.line
        _check(open_, new, days)
        open_.learn(new, *line.keys)
        if new.fingerprint not in line.keys:
            open_.append("replace-key", "", "", key=new.fingerprint, key_days=days)
        open_.sign_by(new)
        if new.fingerprint not in line.signed:
            open_.append("renew", "", "")
        open_.show()
        until = open_.seen.line.until[old]
        return [
            f"key      {old} -> {new.fingerprint}",
            f"old      may sign what is new until {until:%Y-%m-%d}; what it has signed before stays good",
            "now      set publish.key (or publish.key_file) to it, and pass it on: docs/publishing.md",
        ]


def _check(open_: Session, new: gpg.Key, days: int) -> None:
    old, line = open_.key.fingerprint, open_.seen.line
    if not 1 <= days <= ledger.LARGEST_DAYS:
        raise _no_days(days)
    if not open_.state.sequence:
        raise ConfigError(f"there is nothing in {open_.store.url} yet", hint="publish with the new key from the first")
    begun = line.keys[-2:] == (old, new.fingerprint)
    if not begun and (old != line.keys[-1] or new.fingerprint in line.keys):
        raise ConfigError(
            f"--replace-key: {new.fingerprint} cannot replace {old}: the keys of this store are {', '.join(line.keys)}",
            hint="the last of them can be replaced, by one that is not among them",
        )
    if begun and new.fingerprint not in line.signed and line.until[old] > datetime.now(UTC) + timedelta(days=days + 1):
        path = ledger.path_of(line.named[new.fingerprint])
        raise ConfigError(
            f"--days: {path} is there already, and lets {old} sign until {line.until[old]:%Y-%m-%d}",
            hint="if that is yours, from a run that was interrupted, say as many days as then. Else somebody has the "
            f"old key: remove {path} from the store, and run it again",
        )
    public = new.public(open_.scratch / "new.gpg")
    weak = gpg.weakness(public)
    if weak:
        raise ConfigError(f"--replace-key: {new.fingerprint} is too weak: {weak}", hint="make a new one (ed25519)")
    _try(new, public, open_.scratch)
    try:
        _try(replace(open_.key, exact=True), open_.seen.keys, open_.scratch)
    except CommandFailed as error:
        raise ConfigError(
            f"--replace-key: the primary key {old} itself has to sign, not a subkey of it, and cannot here",
            details=error.details,
            hint=f"bring its secret part here; if it only certifies: `gpg --edit-key {old} change-usage` (S, Q, save)",
        ) from error


def _try(key: gpg.Key, public: Path, scratch: Path) -> None:
    path = scratch / "tried.asc"
    path.write_text(key.clearsign("to be tried\n", scratch), encoding="utf-8")
    gpg.opened(path, public, scratch)
