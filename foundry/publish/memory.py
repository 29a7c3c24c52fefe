"""What stores have served before: of each publisher's key its stores, where they were, and how far their logs had come.

An entry names the one before it, so the digest of the last entry that was seen stands for all of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foundry import files
from foundry.errors import CorruptArtifact, FoundryError
from foundry.publish.ledger import Broken, State

KEYS = "keys"


class Stale(FoundryError):
    """A store serves something older than it has served before, or than it says is good."""

    code = 14


class Fork(Broken):
    """A store serves another history than it has served before, or is another store."""


@dataclass(frozen=True)
class Record:
    """A store as it was seen last. store: its id, "" where its log names none. urls: where it was found."""

    store: str
    urls: tuple[str, ...]
    sequence: int
    head: str

    def problem(self, state: State, digests: Sequence[str], url: str, hint: str = "") -> Stale | Fork | None:
        """What is wrong where a store is this one. digests: of the entries of its log. url: where it is."""
        if state.sequence and url in self.urls and self.store and state.store != self.store:
            now = f"the store {state.store}" if state.store else "one without an id"
            return Fork(f"{url}: it was the store {self.store} before, and is {now} now", hint=hint)
        if state.sequence < self.sequence:
            text = f"it has served {self.sequence} entries before, and serves {state.sequence} now"
            return Stale(f"{url}: {text}", hint=hint)
        if self.sequence and digests[self.sequence - 1] != self.head:
            return Fork(f"{url}: entry {self.sequence} of its log is another one than it was before", hint=hint)
        return None


@dataclass(frozen=True)
class Memory:
    """What is remembered of the stores of one key. path: of the file. fingerprint: of the primary key.

    given: the key as older programs knew it, which filed what they saw by its bytes.
    """

    path: Path
    fingerprint: str
    given: bytes = field(default=b"", repr=False)

    @property
    def certificates(self) -> list[str]:
        """Every key of a publisher with all that was known of it, armored: this one, and those of other stores."""
        return [str(mine["certificate"]) for mine in self._all().get(KEYS, {}).values() if mine.get("certificate")]

    def recall(self, store: str, url: str) -> list[Record]:
        """What was seen of a store of this id, and of what was at this URL."""
        return self._split(self._all(), store, url)[0]

    def remember(self, state: State, url: str, certificate: str, *, anew: bool = False) -> None:
        """Note what a store serves. anew: in place of what was seen before, which is kept beside it."""
        with self._locked():
            known = self._all()
            same, others = self._split(known, state.store, url)
            urls = {url}.union(*(r.urls for r in same if r.store == state.store or not r.store))
            found = Record(state.store, tuple(sorted(urls)), state.sequence, state.head)
            if not anew and any(r.sequence > found.sequence for r in same if r.store == state.store):
                # Another run has seen more meanwhile.
                return
            mine = dict(self._mine(known))
            if anew:
                at = datetime.now(UTC).isoformat(timespec="seconds")
                mine["replaced"] = [*mine.get("replaced", []), *({**asdict(r), "until": at} for r in same)]
            mine |= {"certificate": certificate, "stores": [asdict(r) for r in (*others, found)]}
            rest = {name: value for name, value in known.items() if name not in (KEYS, self._old_name(url))}
            files.write_json(self.path, {**rest, KEYS: {**known.get(KEYS, {}), self.fingerprint: mine}})

    def _split(self, known: Mapping[str, Any], store: str, url: str) -> tuple[list[Record], list[Record]]:
        """The records that are about a store, and the others."""
        rows = [_record(row) for row in self._mine(known).get("stores", [])]
        same = [r for r in rows if url in r.urls or (store and r.store == store)]
        others = [r for r in rows if r not in same]
        old = known.get(self._old_name(url))
        if old:
            same.append(Record("", (url,), int(old["sequence"]), str(old["head"])))
        return same, others

    def _old_name(self, url: str) -> str:
        return hashlib.sha256(self.given + url.encode()).hexdigest()

    def _all(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] | None = files.read_json(self.path)
        if found is None and self.path.exists():
            raise CorruptArtifact(
                f"{self.path} is damaged, which says what stores have served before",
                hint="remove it to forget that, and look at each store as if for the first time",
            )
        return found or {}

    def _mine(self, known: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = known.get(KEYS, {}).get(self.fingerprint, {})
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _record(row: Mapping[str, Any]) -> Record:
    return Record(str(row["store"]), tuple(row["urls"]), int(row["sequence"]), str(row["head"]))
