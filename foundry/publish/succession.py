"""The primary keys of a store, one after the other: each was named in the log by the one before it.

A key that was replaced may sign what is new for a while, so that its readers and publishers have time. That while is
one of the reader's clock: what an entry says of when it was made, whoever holds the key has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from foundry.gpg import BadSignature, Signature, Standing
from foundry.publish.ledger import Broken, Entry


@dataclass(frozen=True)
class Succession:
    """What a log says of its keys. keys: fingerprints, the first one first. signed: those that have signed an entry.

    until: of each that was replaced, when its while ends. named: of each but the first, the number of its entry.
    """

    keys: tuple[str, ...] = ()
    signed: frozenset[str] = frozenset()
    until: Mapping[str, datetime] = field(default_factory=dict)
    named: Mapping[str, int] = field(default_factory=dict)

    def after(self, entry: Entry, signature: Signature) -> Succession:
        """It, once an entry with this signature is made. Raises BadSignature and Broken where it cannot be."""
        keys = self.keys or (signature.key,)
        if signature.key not in keys:
            raise BadSignature(f"{entry.path}: its signature does not hold: the log has not named {signature.key}")
        found = replace(self, keys=keys, signed=self.signed | {signature.key})
        if entry.action != "replace-key":
            return found
        # A subkey signs every day, often where nobody looks: who steals one must not get hold of the store for good.
        if signature.key != keys[-1] or not signature.by_primary:
            raise BadSignature(
                f"{entry.path}: its signature does not hold: only the store's present primary key itself, {keys[-1]}, "
                "can name another"
            )
        if entry.sequence == 1 or entry.key in keys:
            raise Broken(f"{entry.path} names {entry.key}, which cannot come after {', '.join(self.keys) or 'nothing'}")
        assert entry.key is not None
        return replace(
            found,
            keys=(*keys, entry.key),
            until={**self.until, signature.key: entry.key_until},
            named={**self.named, entry.key: entry.sequence},
        )

    def over(self, key: str, now: datetime) -> bool:
        """Whether a key may not sign anything new any more. It may until the next one has signed, however long."""
        return key in self.until and self.next(key) in self.signed and now >= self.until[key]

    def standing(self, signature: Signature, now: datetime) -> Standing:
        """How the key stands now that has signed something."""
        return "replaced" if signature.standing == "good" and self.over(signature.key, now) else signature.standing

    def next(self, key: str) -> str | None:
        """The key that a key has named."""
        place = self.keys.index(key) + 1 if key in self.keys else len(self.keys)
        return self.keys[place] if place < len(self.keys) else None
