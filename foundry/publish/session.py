"""A store that is open: to be read by whoever has a public key, or to be changed by the key that signs."""

from __future__ import annotations

import getpass
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foundry import files, gpg
from foundry.config import Config
from foundry.publish import ledger, signing, trust
from foundry.publish.ledger import Entry, State
from foundry.publish.memory import Memory
from foundry.publish.shelf import Shelf
from foundry.publish.stores import Missing, Options, Store, open_store
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
    """A store that is open for changes. key: signs them. keys, certificate: all that is known of it.

    scratch: removed at the end. holds: whether the key still holds that has signed the index.
    """

    settings: Config
    workspace: Workspace
    store: Store
    key: gpg.Key
    keys: Path
    scratch: Path
    shelf: Shelf
    memory: Memory
    certificate: str
    state: State = field(default_factory=State)
    holds: bool = True
    _key_is_there: bool = False

    def append(self, action: ledger.Action, name: str, version: str, **facts: str | None) -> None:
        """Make an entry in the log; see ledger.append. It says what the log does not say yet of the store itself."""
        state, days = self.state, self.settings.publish.valid_days
        if state.sequence and (not self.holds or state.valid_days is None or days < state.valid_days):
            # Once the entry is there, an index that is good for longer is refused; and so is one that a key has signed
            # which no longer holds, once the store says so.
            self._write_index()
        entry = Entry(
            self.state.sequence + 1,
            self.state.head,
            action,
            name,
            version,
            who=f"{getpass.getuser()} ({self.key.user or self.key.fingerprint})",
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            store=None if state.store else secrets.token_hex(16),
            valid_days=None if state.valid_days == days else days,
            **facts,
        )
        self.state = ledger.append(self.store, self.state, entry, self._signed)
        self._remember()

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
            before = self.state
            for entry, digest in ledger.entries(self.store, before.sequence + 1, self.keys, self.scratch):
                self.state = self.state.after(entry, digest)
            if self.state == before:
                return
            self._remember()

    def _write(self) -> None:
        now = self._write_index()
        views = Views(self.settings.publish, self.store, self.shelf, self.key, self.scratch)
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
        text = self.certificate.encode()
        try:
            there = self.store.read(trust.KEY)
        except Missing:
            there = b""
        if there != text:
            self.store.replace(trust.KEY, text)
        self._key_is_there = True

    def _signed(self, text: str) -> bytes:
        """A text, signed. Raises BadSignature where readers would not believe it: gpg may know less of the key."""
        data = self.key.clearsign(text, self.scratch).encode()
        path = self.scratch / "signed.asc"
        path.write_bytes(data)
        gpg.opened(path, self.keys, self.scratch)
        self._write_key()
        return data

    def _remember(self) -> None:
        self.memory.remember(self.state, self.store.url, self.certificate)


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
        keys = key.public(Path(name) / "own.gpg")
        found = trust.Reader(store, keys, Path(name), workspace.seen).change(accept)
        memory, certificate = Memory(workspace.seen, key.fingerprint), gpg.armored(found.keys)
        yield Session(
            settings,
            workspace,
            store,
            key,
            found.keys,
            Path(name),
            Shelf(store),
            memory,
            certificate,
            found.state,
            found.holds,
        )
