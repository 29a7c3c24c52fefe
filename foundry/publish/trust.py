"""Whether to believe what a store serves: signed by a key that holds, not older than it was, and not another store.

The log decides. A key that holds vouches, by the index or by an entry, for all entries before: each names the digest of
the one before it. So what a key has signed that has expired, was revoked or was replaced since is good for as far as
that goes.
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
from foundry.publish.stores import Missing, Store, too_large
from foundry.publish.succession import Succession

KEY = "key.asc"
EMPTY = "empty"
LARGEST_KEY = 1 << 20
_SHORTEST = 12
# Clocks differ.
_SLACK = timedelta(days=1)


@dataclass(frozen=True)
class Found:
    """What a store's log has led to. keys: of its publisher, with what the store adds to them. index: what it says.

    certificates: the keys as people pass them on, by fingerprint. line: which came after which. holds: whether the key
    still holds that has signed the index.
    """

    state: State
    entries: tuple[Entry, ...]
    keys: Path
    certificates: Mapping[str, str]
    line: Succession
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
        reading = self._read(accept)
        if reading.index is None:
            raise Missing(f"{self.store.url} has no {ledger.INDEX}")
        for problem in reading.problems():
            raise problem
        reading.tell()
        return reading.remembered()

    def change(self, accept: str | None = None) -> Found:
        """What a publisher goes on from: it may be due to be signed anew. Raises BadSignature, Broken, Fork, Stale."""
        reading = self._read(accept)
        for problem in (*reading.forgotten(), *reading.unvouched(), *reading.unknown()):
            raise problem
        revoked = [str(s.entry.sequence) for s in reading.signed if s.standing == "revoked"]
        # Said once: what is always said is not read.
        if revoked and not set(reading.found.certificates.values()) <= set(reading.memory.certificates):
            log.info(
                f"{_entries(revoked)} signed by a key that was revoked since: is it all yours? "
                "`./inv releases` shows the last ones"
            )
        return reading.remembered()

    def look(self) -> Found:
        """What is there, to be shown: what is wrong with it is said, and nothing is remembered. Raises Broken."""
        reading = self._read(None)
        problems = list(reading.problems())
        for problem in problems:
            log.info(f"not to be believed: {problem.brief}")
        if not problems:
            reading.tell()
            warn_of_date(reading.found, self.store.url)
        return reading.found

    def _read(self, accept: str | None) -> _Reading:
        try:
            return _Reading(self, accept)
        except gpg.BadSignature:
            # Its publisher may have brought a key after that was read, and signed an entry with it. Or what is
            # remembered was served once by somebody who had made a subkey of it useless: of two copies of a signature
            # gpg keeps the first, and a part of each nobody has signed.
            return _Reading(self, accept, served_first=True)


@dataclass(frozen=True)
class _Signed:
    """An entry. by: the primary key. standing: as the entries before it tell. line: the keys after it."""

    entry: Entry
    by: str
    standing: gpg.Standing
    line: Succession


class _Reading:
    """A store as it was read once. accept: how the digest of the log's last entry begins, which a person has looked at.

    Accepted is only what is not as it was before, or not vouched for by a key that holds. No key is believed by that.
    """

    def __init__(self, reader: Reader, accept: str | None, *, served_first: bool = False) -> None:
        self.reader, self.url, self.now = reader, reader.store.url, datetime.now(UTC)
        self.pinned = gpg.primary(reader.pinned)
        self.memory = Memory(reader.memory, self.pinned, reader.pinned.read_bytes())
        self.index: gpg.Signature | None = None
        self.digests: list[str] = []
        self.signed: list[_Signed] = []
        self.until, self.trusted = 0, frozenset({self.pinned})
        ring, state, facts = self._open(served_first)
        self._accept(accept, state)
        self.known = self.memory.recall(state.store, self.url)
        # What was seen with another of its keys is no reason to believe anything with this one, but not forgotten.
        others = (Memory(reader.memory, key) for key in self.line.keys if key != self.pinned)
        self.elsewhere = [record for memory in others for record in memory.recall(state.store, self.url)]
        self._vouch(state)
        keys, certificates = gpg.taken(ring, self.line.keys, reader.scratch)
        holds = not any(self.unsigned_now())
        entries = tuple(s.entry for s in self.signed)
        self.found = Found(state, entries, keys, certificates, self.line, facts, holds)

    def _open(self, served_first: bool) -> tuple[Path, State, Mapping[str, Any]]:
        """Read the index and the log, each with who has signed it; returns all keys, the state, what the index says."""
        store, scratch = self.reader.store, self.reader.scratch
        try:
            # Before the key: what has signed it is in the store by then.
            data: bytes | None = store.read(ledger.INDEX)
        except Missing:
            data = None
        if data is not None and len(data) > ledger.LARGEST_INDEX:
            raise too_large(ledger.INDEX, ledger.LARGEST_INDEX, store.url)
        others = [*(c.encode() for c in self.memory.certificates), own_key(store)]
        others = others[::-1] if served_first else others
        # Also such as have nothing to do with it: line decides whose signatures count.
        ring = gpg.merged(self.reader.pinned, others, scratch, every=True)
        facts: Mapping[str, Any] = {}
        self.shown = State()
        if data is not None:
            text, self.index = ledger.opened_once(ledger.INDEX, data, ring, scratch)
            self.shown, facts = ledger.parse_index(text)
        state, line, fits = State(), Succession(), self.shown == State()
        for entry, digest, signature in ledger.entries_once(store, ring, scratch):
            if entry.key and entry.key_until > self.now + timedelta(days=ledger.LARGEST_DAYS) + _SLACK:
                # A thief of the old key dates it as he likes; one in a thousand years would make it good for as long.
                raise Broken(
                    f"{entry.path} lets the key that it replaces sign until {entry.key_until:%Y-%m-%d}, which is more "
                    f"than {ledger.LARGEST_DAYS} days",
                    hint="is this machine's clock right? else its publisher removes what is not his from the store's "
                    "log, from the last file on",
                )
            standing = line.standing(signature, self.now)
            line, state = line.after(entry, signature), state.after(entry, digest)
            fits = fits or state == self.shown
            self.digests.append(digest)
            self.signed.append(_Signed(entry, signature.key, standing, line))
        self.line = line if line.keys else Succession((self.pinned,), frozenset({self.pinned}))
        self._refuse_strangers(self.line)
        if not fits:
            raise Broken(f"{self.url}: its index is not what its log leads to")
        if state != self.shown and self.index:
            behind = state.sequence - self.shown.sequence
            log.info(f"the index is {behind} behind the log, which is signed as well: used that")
        self.standing = self.line.standing(self.index, self.now) if self.index else None
        self.shower = self.index.key if self.index else ""
        return ring, state, facts

    def _accept(self, accept: str | None, state: State) -> None:
        self.name = state.head[:16] or EMPTY
        self.accepted = accept is not None and (
            len(accept) >= _SHORTEST and state.head.startswith(accept) if state.head else accept == EMPTY
        )
        if accept is not None and not self.accepted:
            raise Broken(
                f"{self.url}: what is to be accepted, {accept}, is not what is there", hint=f"that is {self.name}"
            )

    def _refuse_strangers(self, line: Succession) -> None:
        """Raise BadSignature where the key that was given has signed nothing here, or the index is by none of these."""
        stranger = self.index.key if self.index else ""
        if self.pinned in line.signed and stranger in ("", *line.keys):
            return
        if self.pinned in line.keys and self.pinned not in line.signed:
            raise gpg.BadSignature(
                f"{self.url}: its log names {self.pinned}, which has signed nothing in it yet",
                hint="was its publisher interrupted? he runs `./inv renew-store --replace-key` again, with the key "
                "before this one",
            )
        by = stranger if self.pinned in line.signed else ", ".join(line.keys)
        raise gpg.BadSignature(
            f"{ledger.INDEX if self.index else ledger.LOG}: its signature does not hold: it is by {by}, and nothing "
            f"that {self.pinned} has signed names that key",
            hint="is this the right store, and the right key? a publisher who has lost his key begins a new store: get "
            "the key of that by the way the first one came",
        )

    def _vouch(self, state: State) -> None:
        """Find out up to which entry a key that holds vouches for the log, or this machine has seen it before.

        From there on its keys are known, each by the one before or by one after it; so what they sign counts as well.
        """
        self.seen = max((r.sequence for r in self.known if r.problem(state, self.digests, self.url) is None), default=0)
        self._trust(self.seen)
        for number, signed in enumerate(self.signed, 1):
            if signed.by in self.trusted and signed.standing == "good":
                self._trust(number)
            if number == self.shown.sequence and self.standing == "good" and self.shower in self.trusted:
                self._trust(number)

    def _trust(self, until: int) -> None:
        if until > self.until:
            self.until = until
            self.trusted |= set(self.signed[until - 1].line.keys)

    def problems(self) -> Iterator[FoundryError]:
        """All that is wrong for a reader."""
        yield from (*self.unsigned_now(), *self.forgotten(), *self.unvouched(), *self.undated())

    def tell(self) -> None:
        """Say once that the key is another one now."""
        new = self.line.keys[-1]
        if self.seen < self._named():
            log.info(
                f"{self.url}: its key {self.pinned} was replaced, by {new}: entry {self._named()} of the log says so, "
                "which the old one has signed. Pin the new one from now on, where you have pinned the old one (--key, "
                f"publish.public_key): import {KEY} of the store, then `gpg --armor --export {new} > FILE`"
            )

    def unsigned_now(self) -> Iterator[FoundryError]:
        """Whether the index is signed by a key that holds."""
        if self.index and self.shower not in self.trusted:
            yield gpg.BadSignature(
                f"{ledger.INDEX}: its signature does not hold: it is by {self.shower}, for which no key vouches that "
                "holds",
                hint=self._way_out("is this an old copy? its publisher renews it by `./inv renew-store`"),
            )
        elif self.standing not in (None, "good"):
            yield gpg.lapsed(ledger.INDEX, self.standing)

    def _way_out(self, otherwise: str) -> str:
        """What to do next, where it is not that the key was replaced, and had no time to say so to this machine."""
        if self._named() <= self.until:
            return otherwise
        return (
            f"the log says that the key you have was replaced, by {self.line.keys[-1]}. Yours does not hold any more, "
            "and this machine has not seen that entry while it did: get the new key from the publisher by the way the "
            "first one came, and pin it in place of that (--key, publish.public_key)"
        )

    def _named(self) -> int:
        """The number of the entry that replaces the key that was given, 0 where none does."""
        return self.line.named.get(self.line.next(self.pinned) or "", 0)

    def forgotten(self) -> Iterator[FoundryError]:
        """Whether a log, or a store, was put in place of what was here before."""
        hint = (
            "somebody has put an old copy or another store here: get the right one back. If it was meant, look at it "
            f"(`./inv releases`), then: `./inv verify-release … --accept {self.name}`, its publisher: `./inv "
            f"renew-store --accept {self.name}`. All others who have seen what was here before have to do so as well"
        )
        yield from () if self.accepted else self._differs(hint)

    def _differs(self, hint: str = "") -> Iterator[Stale | Fork]:
        records = (*self.known, *self.elsewhere)
        problems = (r.problem(self.found.state, self.digests, self.url, hint) for r in records)
        yield from (problem for problem in problems if problem)

    def unvouched(self) -> Iterator[FoundryError]:
        """Whether a key that holds vouches for the last entry, or this very log was seen before."""
        for signed in () if self.accepted else self.signed[self.until :]:
            if signed.standing == "good":
                brief = f"{signed.entry.path}: {signed.by} has signed it, for which no key vouches that holds"
            else:
                brief = gpg.lapsed(signed.entry.path, signed.standing).brief
            hint = (
                "this machine has not seen it before: look at what is there (`./inv releases`). Its publisher "
                "removes what is not his from the store's log, from the last file on; if all is right: `./inv "
                f"renew-store --accept {self.name}`"
            )
            yield gpg.BadSignature(brief, hint=self._way_out(hint))

    def unknown(self) -> Iterator[FoundryError]:
        """Whether a machine that has not seen a store would make an old copy of it the newest state."""
        if self.known or self.elsewhere or self.accepted or not self.signed:
            return
        log.info(f"{self.url}: this machine sees it for the first time; the last entry: {self.signed[-1].entry}")
        for problem in self.undated():
            yield Stale(
                f"{problem.brief}, and this machine has not seen it before",
                hint="look at what is there (`./inv releases`). If it is all that was published: "
                f"`./inv renew-store --accept {self.name}`",
            )

    def undated(self) -> Iterator[FoundryError]:
        """Whether the index is too old, or could be."""
        now, expires, days = self.now, self.found.expires, self.found.state.valid_days
        hint = "is this an old copy? its publisher renews it by `./inv renew-store`, `promote` or `publish`"
        if self.index is None:
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
        remember(self.memory, self.found, self.url, anew=any(self._differs()))
        return self.found


def remember(memory: Memory, found: Found, url: str, *, anew: bool = False) -> None:
    """Note what a store serves: for the key of memory, and for each other one that has signed in its log.

    So whoever pins another of its keys later goes on from there. One that was only named, anybody could have named.
    """
    for key, certificate in found.certificates.items():
        if key in found.line.signed:
            mine = memory if key == memory.fingerprint else Memory(memory.path, key)
            mine.remember(found.state, url, certificate, anew=anew)


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


def own_key(store: Store) -> bytes:
    """What a store says of its publisher's key, which proves nothing by itself."""
    try:
        size = store.size(KEY)
        return store.read(KEY) if size and size <= LARGEST_KEY else b""
    except Missing:
        return b""


def _entries(numbers: list[str]) -> str:
    what = f"entry {numbers[0]}" if len(numbers) == 1 else f"entries {', '.join(numbers)}"
    return f"{what} of the log {'is' if len(numbers) == 1 else 'are'}"
