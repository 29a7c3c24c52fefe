"""Who has published, promoted or rolled back what, and when: a signed log that only grows, and the state it leads to.

Each entry names the digest of the one before it, so that none can be taken out or put in. An entry is made by
creating the file of the next number, which succeeds once: of two publishers, the other has to look again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from foundry import files, gpg
from foundry.errors import FoundryError
from foundry.publish.stores import Missing, Store, Taken, too_large

LOG = "log"
INDEX = "index.asc"
LARGEST_DAYS = 365
"""For how long a key that was replaced may sign what is new, at most."""
LARGEST_INDEX, LARGEST_ENTRY, LARGEST_LOG = 4 << 20, 64 << 10, 64 << 20
"""Bytes that are read before anybody knows whose they are: a server can sign as many as it likes with its own key."""
Action = Literal["publish", "promote", "rollback", "retire", "renew", "replace-key"]
# What an entry says nothing of where it is None, so that programs of before can read it.
_RARE = ("store", "valid_days", "key", "key_days")


class Conflict(FoundryError):
    """Somebody else has changed the store meanwhile."""

    code = 12


class Broken(FoundryError):
    """What a store says does not fit together."""

    code = 13


@dataclass(frozen=True)
class Entry:
    """One change. previous: sha256 of the entry before, as it lies in the store. sums: of a version's SHA256SUMS.

    channel, before: which channel points at version now, and what it pointed at. when: UTC, ISO 8601. store: the id
    that the store has from now on. valid_days: for how long an index may be good from now on. key: the fingerprint of
    the primary key that replaces the one which has signed this. key_days: for how long that may still sign what is new.
    An entry that is about the store alone (renew, replace-key) has an empty image and version.
    """

    sequence: int
    previous: str
    action: Action
    image: str
    version: str
    who: str
    when: str
    channel: str | None = None
    before: str | None = None
    sums: str | None = None
    store: str | None = None
    valid_days: int | None = None
    key: str | None = None
    key_days: int | None = None

    @property
    def path(self) -> str:
        """Where it lies in a store."""
        return path_of(self.sequence)

    @property
    def key_until(self) -> datetime:
        """Until when the key that has signed a replace-key may sign what is new. Raises ValueError for nonsense."""
        if type(self.key_days) is not int or not 1 <= self.key_days <= LARGEST_DAYS:
            raise ValueError(f"{self.key_days!r} is no number of days from 1 to {LARGEST_DAYS}")
        when = datetime.fromisoformat(self.when)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)) + timedelta(days=self.key_days)

    def __str__(self) -> str:
        target = f" to {self.channel}" if self.channel else ""
        what = f"{self.image} {self.version}{target}" if self.image else f"with {self.key}" if self.key else "the store"
        return f"{self.action} {what} by {self.who} at {self.when}"


@dataclass(frozen=True)
class State:
    """What a log has led to.

    versions: of each image, version to the sha256 of its SHA256SUMS, in the order of publishing. channels: of each
    image, channel to the versions that it has pointed at, the last one now; a rollback goes back in it. retired: of
    each image, the versions that were taken out. store: its id, "" where it has none. valid_days: for how long an index
    may be good, None where nothing says so.
    """

    sequence: int = 0
    head: str = ""
    versions: Mapping[str, Mapping[str, str]] = None  # type: ignore[assignment]
    channels: Mapping[str, Mapping[str, tuple[str, ...]]] = None  # type: ignore[assignment]
    retired: Mapping[str, tuple[str, ...]] = None  # type: ignore[assignment]
    store: str = ""
    valid_days: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", self.versions or {})
        object.__setattr__(self, "channels", self.channels or {})
        object.__setattr__(self, "retired", self.retired or {})

    def current(self, image: str, channel: str) -> str | None:
        """The version that a channel points at."""
        return next(iter(self.channels.get(image, {}).get(channel, ())[-1:]), None)

    def pointed(self, image: str) -> set[str]:
        """The versions that channels point at."""
        return {stack[-1] for stack in self.channels.get(image, {}).values() if stack}

    def after(self, entry: Entry, digest: str) -> State:
        """The state once entry, whose file has this digest, is made. Raises Broken where it cannot come next."""
        if entry.sequence != self.sequence + 1 or entry.previous != self.head:
            raise Broken(f"{entry.path} does not follow entry {self.sequence} of the log")
        if entry.store and self.store and entry.store != self.store:
            raise Broken(f"{entry.path} is of the store {entry.store}, and the log is of {self.store}")
        days = self.valid_days if entry.valid_days is None else entry.valid_days
        known = replace(self, sequence=entry.sequence, head=digest, store=entry.store or self.store, valid_days=days)
        if entry.action in ("renew", "replace-key"):
            return known
        versions = dict(self.versions.get(entry.image, {}))
        channels = dict(self.channels.get(entry.image, {}))
        retired = tuple(v for v in self.retired.get(entry.image, ()) if v != entry.version)
        if entry.action == "retire":
            versions.pop(entry.version, None)
            retired = (*retired, entry.version)
            stacks = {name: tuple(v for v in stack if v != entry.version) for name, stack in channels.items()}
            channels = {name: stack for name, stack in stacks.items() if stack}
        else:
            if entry.sums:
                versions[entry.version] = entry.sums
            if entry.channel:
                stack = channels.get(entry.channel, ())
                back = entry.action == "rollback" and entry.version in stack
                stack = stack[: stack.index(entry.version)] if back else stack
                channels[entry.channel] = (*(v for v in stack if v != entry.version), entry.version)
        return replace(
            known,
            versions={**self.versions, entry.image: versions},
            channels={**self.channels, entry.image: channels},
            retired={**self.retired, entry.image: retired},
        )


def path_of(sequence: int) -> str:
    """Where an entry lies in a store."""
    return f"{LOG}/{sequence:08}.json.asc"


def index_text(state: State, written: str, expires: str | None) -> str:
    """The index of a state, which readers of a store begin with. written, expires: UTC, ISO 8601.

    The first format is that of stores without an id. Programs that know only that one must not take the second for it,
    since they would write an index without a date: they miss what is one level deeper, and say that it is none.
    """
    facts = {name: value for name, value in asdict(state).items() if state.store or name not in ("store", "valid_days")}
    said = {"format": 2, "state": facts} if state.store else {"format": 1, **facts}
    return json.dumps({"written": written, "expires": expires, **said}, indent=1) + "\n"


def parse_index(text: str) -> tuple[State, Mapping[str, Any]]:
    """The state in an index, and all that the index says. Raises Broken."""
    try:
        said = json.loads(text)
        if said["format"] not in (1, 2):
            raise Broken(
                f"{INDEX} is of format {said['format']}, and this program knows 1 and 2",
                hint="a newer version of this program has written it: use that one",
            )
        facts = said["state"] if said["format"] == 2 else said
        channels = {i: {c: tuple(vs) for c, vs in cs.items()} for i, cs in facts["channels"].items()}
        retired = {i: tuple(vs) for i, vs in facts.get("retired", {}).items()}
        more = (str(facts.get("store", "")), facts.get("valid_days"))
        return State(int(facts["sequence"]), str(facts["head"]), facts["versions"], channels, retired, *more), said
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Broken(f"{INDEX} is signed, but no index of this program's: {error}") from error


def entries_once(store: Store, keys: Path, scratch: Path) -> Iterable[tuple[Entry, str, gpg.Signature]]:
    """The entries of a log, each with the digest of its file and who has signed it: some key of a keyring, once.

    Raises BadSignature, Broken, and StoreError where it has no end.
    """
    left = LARGEST_LOG
    for number in itertools.count(1):
        path = path_of(number)
        try:
            data = store.read(path)
        except Missing:
            return
        left -= len(data)
        if len(data) > LARGEST_ENTRY or left < 0:
            raise too_large(*((path, LARGEST_ENTRY) if left >= 0 else (LOG, LARGEST_LOG)), store.url)
        text, signature = opened_once(path, data, keys, scratch)
        try:
            entry = Entry(**json.loads(text))
            _check(entry)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Broken(
                f"{path} is signed, but no entry: {error}", hint="has a newer version of this program written it?"
            ) from error
        yield entry, hashlib.sha256(data).hexdigest(), signature


def _check(entry: Entry) -> None:
    """Raise ValueError for what no entry says."""
    odd = [name for name, value in vars(entry).items() if not isinstance(value, str | int | float | None)]
    if odd:
        raise ValueError(f"{odd[0]} is neither a text nor a number")
    days = entry.valid_days
    if not (days is None or (type(days) is int and 1 <= days <= 3650)):
        raise ValueError(f"{days!r} is no number of days")
    if entry.action not in get_args(Action):
        raise ValueError(f"{entry.action!r} is nothing that this program knows")
    if (entry.action == "replace-key") != (entry.key is not None):
        raise ValueError("a key is named by replace-key, and by nothing else")
    if entry.key is not None:
        if not re.fullmatch("[0-9A-F]{40}|[0-9A-F]{64}", entry.key):
            raise ValueError(f"{entry.key!r} is no fingerprint of an OpenPGP key")
        # Raises ValueError itself; an assertion would be left out by python -O, and the check with it.
        _ = entry.key_until


def append(store: Store, state: State, entry: Entry, sign: Callable[[str], bytes]) -> State:
    """Sign an entry and put it at the log's end; returns the new state. Raises Conflict where somebody was faster."""
    facts = {k: v for k, v in asdict(entry).items() if v is not None or k not in _RARE}
    data = sign(files.canonical(facts) + "\n")
    try:
        store.create(entry.path, data)
    except Taken as error:
        raise Conflict(
            f"somebody else has changed {store.url} meanwhile",
            details=f"entry {entry.sequence} of the log is not this one: {entry}",
            hint="run it again: what was uploaded is not uploaded again; `./inv releases` shows what is there now",
        ) from error
    return state.after(entry, hashlib.sha256(data).hexdigest())


def opened_once(path: str, data: bytes, keys: Path, scratch: Path) -> tuple[str, gpg.Signature]:
    """The text of what lies at a path of a store, and who has signed it; see gpg.signed_once(). Raises BadSignature."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".log.") as folder:
        target = Path(folder) / path.rpartition("/")[2]
        target.write_bytes(data)
        text, (signature,) = gpg.signed_once(target, keys, Path(folder))
        return text, signature
