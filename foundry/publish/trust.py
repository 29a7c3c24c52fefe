"""Whether to believe what a store serves: signed by a key that holds, not older than it was, and not another store.

The log decides. A key that holds vouches, by the index or by an entry, for all entries before: each names the digest of
the one before it. So what a key has signed that has expired or was revoked since is good for as far as that goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from foundry import gpg, log
from foundry.errors import FoundryError
from foundry.publish import ledger
from foundry.publish.ledger import Broken, Entry, State
from foundry.publish.memory import Fork, Memory, Stale
from foundry.publish.stores import Missing, Store

KEY = "key.asc"
EMPTY = "empty"
_LARGEST_KEY = 1 << 20
_SHORTEST = 12
# Clocks differ.
_SLACK = timedelta(days=1)


@dataclass(frozen=True)
class Found:
    """What a store's log has led to. keys: of its publisher, with what the store adds to them. index: what it says.

    holds: whether the key still holds that has signed the index.
    """

    state: State
    entries: tuple[Entry, ...]
    keys: Path
    index: Mapping[str, Any]
    holds: bool

    @property
    def expires(self) -> datetime | None:
        """Until when the index may be believed. Raises Broken."""
        said = self.index.get("expires")
        if said is None:
            return None
        try:
            found = datetime.fromisoformat(said)
        except (TypeError, ValueError) as error:
            raise Broken(f"{ledger.INDEX} is signed, but {said!r} is no date") from error
        return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Reader:
    """Reads a store. pinned: the publisher's key as it was given. memory: the file of what was seen before."""

    store: Store
    pinned: Path
    scratch: Path
    memory: Path

    def take(self, accept: str | None = None) -> Found:
        """What is to be believed now. accept: see _Reading. Raises BadSignature, Broken, Fork, Stale, Missing."""
        reading = _Reading(self, accept)
        if reading.index_standing is None:
            raise Missing(f"{self.store.url} has no {ledger.INDEX}")
        for problem in (*reading.unsigned_now(), *reading.forgotten(), *reading.unvouched(), *reading.undated()):
            raise problem
        return reading.remembered()

    def change(self, accept: str | None = None) -> Found:
        """What a publisher goes on from: it may be due to be signed anew. Raises BadSignature, Broken, Fork, Stale."""
        reading = _Reading(self, accept)
        for problem in (*reading.forgotten(), *reading.unvouched(), *reading.unknown()):
            raise problem
        revoked = [str(e.sequence) for e, standing in reading.entries if standing == "revoked"]
        # Said once: what is always said is not read.
        if revoked and reading.memory.certificate != gpg.armored(reading.found.keys):
            log.info(
                f"{_entries(revoked)} signed by a key that was revoked since: is it all yours? "
                "`./inv releases` shows the last ones"
            )
        return reading.remembered()

    def look(self) -> Found:
        """What is there, to be shown: what is wrong with it is said, and nothing is remembered. Raises Broken."""
        reading = _Reading(self, None)
        problems = (*reading.unsigned_now(), *reading.forgotten(), *reading.unvouched(), *reading.undated())
        for problem in problems:
            log.info(f"not to be believed: {problem.brief}")
        if not problems:
            warn_of_date(reading.found, self.store.url)
        return reading.found


class _Reading:
    """A store as it was read once. accept: how the digest of the log's last entry begins, which a person has looked at.

    Accepted is only what is not as it was before, or not vouched for by a key that holds.
    """

    def __init__(self, reader: Reader, accept: str | None) -> None:
        store, scratch = reader.store, reader.scratch
        self.url = store.url
        self.fingerprint = gpg.primary(reader.pinned)
        self.memory = Memory(reader.memory, self.fingerprint, reader.pinned.read_bytes())
        try:
            # Before the key: what has signed it is in the store by then.
            data: bytes | None = store.read(ledger.INDEX)
        except Missing:
            data = None
        keys = gpg.merged(reader.pinned, [self.memory.certificate.encode(), _own_key(store)], scratch)
        self.index_standing: gpg.Standing | None = None
        shown = State()
        index: Mapping[str, Any] = {}
        if data is not None:
            text, self.index_standing = ledger.opened_once(ledger.INDEX, data, keys, scratch)
            shown, index = ledger.parse_index(text)
        state, fits, self.shown = State(), shown == State(), shown
        self.digests: list[str] = []
        self.entries: list[tuple[Entry, gpg.Standing]] = []
        for entry, digest, standing in ledger.entries_once(store, 1, keys, scratch):
            state = state.after(entry, digest)
            fits = fits or state == shown
            self.digests.append(digest)
            self.entries.append((entry, standing))
        if not fits:
            raise Broken(f"{store.url}: its index is not what its log leads to")
        if state != shown and self.index_standing:
            log.info(
                f"the index is {state.sequence - shown.sequence} behind the log, which is signed as well: used that"
            )
        self.found = Found(state, tuple(e for e, _ in self.entries), keys, index, self.index_standing in (None, "good"))
        self.name = state.head[:16] or EMPTY
        self.accepted = accept is not None and (
            len(accept) >= _SHORTEST and state.head.startswith(accept) if state.head else accept == EMPTY
        )
        if accept is not None and not self.accepted:
            raise Broken(
                f"{store.url}: what is to be accepted, {accept}, is not what is there", hint=f"that is {self.name}"
            )
        self.known = self.memory.recall(state.store, self.url)

    def unsigned_now(self) -> Iterator[FoundryError]:
        """Whether the index is signed by a key that holds."""
        if self.index_standing not in (None, "good"):
            yield gpg.lapsed(ledger.INDEX, self.index_standing)

    def forgotten(self) -> Iterator[FoundryError]:
        """Whether a log, or a store, was put in place of what was here before."""
        hint = (
            "somebody has put an old copy or another store here: get the right one back. If it was meant, look at it "
            f"(`./inv releases`), then: `./inv verify-release … --accept {self.name}`, its publisher: `./inv "
            f"renew-store --accept {self.name}`. All others who have seen what was here before have to do so as well"
        )
        yield from () if self.accepted else self._differs(hint)

    def _differs(self, hint: str = "") -> Iterator[Stale | Fork]:
        problems = (r.problem(self.found.state, self.digests, self.url, hint) for r in self.known)
        yield from (problem for problem in problems if problem)

    def unvouched(self) -> Iterator[FoundryError]:
        """Whether a key that holds vouches for the last entry, or this very log was seen before."""
        good = [entry.sequence for entry, standing in self.entries if standing == "good"]
        shown = self.shown.sequence if self.index_standing == "good" else 0
        seen = [r.sequence for r in self.known if r.problem(self.found.state, self.digests, self.url) is None]
        until = max(0, shown, *good, *seen)
        for entry, standing in () if self.accepted else self.entries[until:]:
            error = gpg.lapsed(entry.path, standing)
            yield gpg.BadSignature(
                error.brief,
                hint="this machine has not seen it before: look at what is there (`./inv releases`). Its publisher "
                "removes what is not his from the store's log, from the last file on; if all is right: `./inv "
                f"renew-store --accept {self.name}`",
            )

    def unknown(self) -> Iterator[FoundryError]:
        """Whether a machine that has not seen a store would make an old copy of it the newest state."""
        if self.known or self.accepted or not self.entries:
            return
        log.info(f"{self.url}: this machine sees it for the first time; the last entry: {self.entries[-1][0]}")
        for problem in self.undated():
            yield Stale(
                f"{problem.brief}, and this machine has not seen it before",
                hint="look at what is there (`./inv releases`). If it is all that was published: "
                f"`./inv renew-store --accept {self.name}`",
            )

    def undated(self) -> Iterator[FoundryError]:
        """Whether the index is too old, or could be."""
        now, expires, days = datetime.now(UTC), self.found.expires, self.found.state.valid_days
        hint = "is this an old copy? its publisher renews it by `./inv renew-store`, `promote` or `publish`"
        if self.index_standing is None:
            return
        if expires is None:
            if days:
                yield Stale(f"{self.url}: its index has no date, and its log wants one of {days} days", hint=hint)
        elif expires < now:
            yield Stale(f"{self.url}: its index was good until {self.found.index['expires']}", hint=hint)
        elif days and expires > now + timedelta(days=days) + _SLACK:
            yield Stale(
                f"{self.url}: its index says that it is good until {self.found.index['expires']}, and its log allows "
                f"{days} days",
                hint="is this machine's clock right?",
            )

    def remembered(self) -> Found:
        """What was found, which is remembered."""
        anew = any(self._differs())
        self.memory.remember(self.found.state, self.url, gpg.armored(self.found.keys), anew=anew)
        return self.found


def warn_of_date(found: Found, url: str) -> None:
    """Say so where an index never expires, or will soon."""
    expires, days = found.expires, found.state.valid_days
    if not found.state.sequence:
        return
    if expires is None:
        log.info(
            f"{url}: its index has no date, so who comes for the first time could be shown an old copy: "
            "its publisher dates it by `./inv renew-store`"
        )
    elif days and expires - datetime.now(UTC) < timedelta(days=days) / 3:
        log.info(f"{url}: its index is good until {expires.isoformat()} only: `./inv renew-store` renews it")


def _own_key(store: Store) -> bytes:
    """What a store says of its publisher's key, which proves nothing by itself."""
    try:
        size = store.size(KEY)
        return store.read(KEY) if size and size <= _LARGEST_KEY else b""
    except Missing:
        return b""


def _entries(numbers: list[str]) -> str:
    what = f"entry {numbers[0]}" if len(numbers) == 1 else f"entries {', '.join(numbers)}"
    return f"{what} of the log {'is' if len(numbers) == 1 else 'are'}"
