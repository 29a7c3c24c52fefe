"""A store that is open: to be read by whoever has a public key, or to be changed by the key that signs."""

from __future__ import annotations

import getpass
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from foundry import files, gpg, log
from foundry.config import Config
from foundry.errors import ConfigError
from foundry.publish import ledger, signing, trust
from foundry.publish.ledger import Entry, State
from foundry.publish.memory import Memory
from foundry.publish.shelf import Shelf
from foundry.publish.stores import Options, Store, open_store
from foundry.publish.views import Views
from foundry.workspace import Workspace


@contextmanager
def opened(settings: Config, workspace: Workspace, to: str | None, scratch: Path) -> Iterator[Store]:
    """The store of a URL, or the one of foundry.yml; its connections end with the block. Raises ConfigError."""
    chosen = settings.publish
    url = to or chosen.url(workspace.root) or str(workspace.store)
    store = open_store(url, Options(endpoint=chosen.endpoint or "", region=chosen.region or "", scratch=scratch))
    try:
        yield store
    finally:
        store.close()


@dataclass(frozen=True)
class Reading:
    """A store, to be shown. keys: of its publisher, as gpgv takes them. entries: of its log."""

    store: Store
    keys: Path
    scratch: Path
    state: State
    shelf: Shelf
    entries: tuple[Entry, ...]


@contextmanager
def reading(settings: Config, workspace: Workspace, to: str | None) -> Iterator[Reading]:
    """Open a store to look at it: with publish.public_key, or without one with the key that signs; see trust.look().

    Raises ConfigError, BadSignature, Broken, StoreError.
    """
    with (
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, to, Path(name)) as store,
    ):
        keys = signing.trusted(settings, workspace, Path(name))
        found = trust.Reader(store, keys, Path(name), workspace.seen).look()
        yield Reading(store, found.keys, Path(name), found.state, Shelf(store), found.entries)


@dataclass
class Session:
    """A store that is open for changes. key: signs them. seen: what it is now, with all that is known of its keys.

    holds: whether the key still holds that has signed the index. scratch: removed at the end.
    """

    settings: Config
    workspace: Workspace
    reader: trust.Reader
    key: gpg.Key
    seen: trust.Found
    shelf: Shelf
    _key_is_there: bool = False
    _signers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.holds = self.seen.holds

    @property
    def store(self) -> Store:
        return self.reader.store

    @property
    def scratch(self) -> Path:
        return self.reader.scratch

    @property
    def state(self) -> State:
        return self.seen.state

    def append(self, action: ledger.Action, name: str, version: str, **facts: Any) -> None:
        """Make an entry in the log; see ledger.append. It says what the log does not say yet of the store itself."""
        state, days = self.state, self.settings.publish.valid_days
        if state.sequence and (not self.holds or state.valid_days is None or days < state.valid_days):
            # Once the entry is there, an index that is good for longer is refused; and so is one that a key has signed
            # which no longer holds, once the store says so.
            self._write_index()
        entry = Entry(
            state.sequence + 1,
            state.head,
            action,
            name,
            version,
            who=f"{getpass.getuser()} ({self.key.user or self.key.fingerprint})",
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            store=None if state.store else secrets.token_hex(16),
            valid_days=None if state.valid_days == days else days,
            **facts,
        )
        # A key is replaced by itself, not by one of its subkeys: see Succession.
        key = replace(self.key, exact=action == "replace-key")
        after = ledger.append(self.store, state, entry, lambda text: self._signed(text, key))
        line = self.seen.line.after(entry, gpg.Signature(key.fingerprint, key.exact, "good"))
        self.seen = replace(self.seen, state=after, line=line)
        trust.remember(Memory(self.workspace.seen, key.fingerprint), self.seen, self.store.url)

    @property
    def settled(self) -> bool:
        """Whether the log says of the store itself all that it is to say."""
        return bool(self.state.store) and self.state.valid_days == self.settings.publish.valid_days

    def show(self) -> None:
        """Let the store's readers see the state: by the index first, and then as other programs read it.

        Where another publisher was faster meanwhile, its changes are shown as well: of two who write at once, the one
        that comes last has seen both.
        """
        while True:
            self._write()
            if self.store.size(ledger.path_of(self.state.sequence + 1)) is None:
                return
            self.seen = self.reader.change()

    def _write(self) -> None:
        now = self._write_index()
        line, mine = self.seen.line, self.key.fingerprint
        able = {k for k in gpg.primaries(self.seen.keys, holding=True) if k != mine and not line.over(k, now)}
        others = {k: text for k, text in self.seen.certificates.items() if k in able}
        if not self._signers:
            self._signers = tuple(k for k in line.keys if k == mine or (k in others and self.key.also_signs_as(k)))
            for key in sorted(others.keys() - {*self._signers}):
                log.info(
                    f"apt refuses what is signed from now on where it knows only {key}: that key may sign still, but "
                    "its secret part is not here, or gpg-agent would have to ask for it"
                )
        views = Views(self.settings.publish, self.store, self.shelf, self.key, self.scratch, others, self._signers)
        for path, data in views.files(self.state, now):
            self.store.replace(path, data)

    def _write_index(self) -> datetime:
        now, days = datetime.now(UTC), self.settings.publish.valid_days
        expires = now + timedelta(days=min(days, self.state.valid_days or days))
        dates = (moment.isoformat(timespec="seconds") for moment in (now, expires))
        self.store.replace(ledger.INDEX, self._signed(ledger.index_text(self.state, *dates)))
        self.holds = True
        return now

    def _write_key(self) -> None:
        """Bring to readers what is new of the key, before what it has signed. What others have brought stays."""
        if self._key_is_there:
            return
        # The newest first: some programs read only one.
        newest = list(self.seen.certificates)[::-1]
        there, mine = trust.own_key(self.store), "".join(self.seen.certificates[k] for k in newest).encode()
        if there != mine:
            # Another publisher may be about to name one of the others.
            ring = gpg.merged(self.seen.keys, [there], self.scratch, every=True)
            others = sorted(gpg.primaries(ring) - {*newest})
            text = "".join(gpg.taken(ring, [*newest, *others], self.scratch)[1].values()).encode()
            self.store.replace(trust.KEY, text if len(text) <= trust.LARGEST_KEY else mine)
        self._key_is_there = True

    def _signed(self, text: str, key: gpg.Key | None = None) -> bytes:
        """A text, signed. Raises BadSignature where readers would not believe it: gpg may know less of the key."""
        data = (key or self.key).clearsign(text, self.scratch).encode()
        path = self.scratch / "signed.asc"
        path.write_bytes(data)
        gpg.opened(path, self.seen.keys, self.scratch)
        self._write_key()
        return data

    def learn(self, key: gpg.Key, *more: str) -> None:
        """Take over what a key's gpg knows of it and of others of the store: what was revoked, above all."""
        known = key.public(self.scratch / "known.gpg", *more)
        # These first: what others have served of a key may be made useless, see Reader.
        ring = gpg.merged(known, [self.seen.keys.read_bytes()], self.scratch, every=True)
        keys, certificates = gpg.taken(ring, [*dict.fromkeys([*self.seen.certificates, key.fingerprint])], self.scratch)
        self.seen, self._key_is_there = replace(self.seen, keys=keys, certificates=certificates), False

    def sign_by(self, key: gpg.Key) -> None:
        """Let another key sign from now on, which the log has named."""
        self.key, self._signers = key, ()
        self.reader = replace(self.reader, pinned=key.public(self.scratch / "next.gpg"))

    def check_key(self) -> None:
        """Raise ConfigError where the key may not sign any more, and say so where it soon may not."""
        line, mine = self.seen.line, self.key.fingerprint
        hint = f"set publish.key (or publish.key_file) to {line.keys[-1]}"
        if line.over(mine, datetime.now(UTC)):
            raise ConfigError(
                f"publish.key: {mine} was replaced in this store, and signs nothing since {line.until[mine]}", hint=hint
            )
        if mine in line.until:
            log.info(f"{mine} was replaced in this store, and may sign until {line.until[mine]}: {hint}")


@contextmanager
def session(settings: Config, workspace: Workspace, to: str | None, *, accept: str | None = None) -> Iterator[Session]:
    """Open a store and read its state. to: its URL, if not the one in foundry.yml. Raises as its parts do.

    accept: what is to be gone on from although it is not what was there before; see trust.
    """
    with (
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, to, Path(name)) as store,
        signing.key(settings, workspace, Path(name)) as key,
    ):
        reader = trust.Reader(store, key.public(Path(name) / "own.gpg"), Path(name), workspace.seen)
        found = Session(settings, workspace, reader, key, reader.change(accept), Shelf(store))
        found.check_key()
        if len(found.seen.line.keys) > 1:
            found.learn(key, *found.seen.line.keys)
        yield found
