"""A store that is open: to be read by whoever has a public key, or to be changed by the key that signs."""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foundry import files, gpg
from foundry.config import Config
from foundry.publish import ledger, signing
from foundry.publish.ledger import Entry, State
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
    """A store and what its log has led to. keys: of its publisher, as gpgv takes them."""

    store: Store
    keys: Path
    scratch: Path
    state: State
    shelf: Shelf


@contextmanager
def reading(settings: Config, workspace: Workspace, to: str | None) -> Iterator[Reading]:
    """Open a store to look at it: with publish.public_key, or without one with the key that signs. Raises ConfigError,
    BadSignature, Broken, StoreError."""
    with (
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, to, Path(name)) as store,
    ):
        keys = signing.trusted(settings, workspace, Path(name))
        yield Reading(store, keys, Path(name), ledger.read(store, keys, Path(name)), Shelf(store))


@dataclass
class Session:
    """A store that is open for changes. key: signs them. scratch: removed at the end."""

    settings: Config
    workspace: Workspace
    store: Store
    key: gpg.Key
    keys: Path
    scratch: Path
    shelf: Shelf
    state: State = field(default_factory=State)

    def append(self, action: ledger.Action, name: str, version: str, **facts: str | None) -> None:
        """Make an entry in the log; see ledger.append."""
        entry = Entry(
            self.state.sequence + 1,
            self.state.head,
            action,
            name,
            version,
            who=f"{getpass.getuser()} ({self.key.user or self.key.fingerprint})",
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
        )
        self.state = ledger.append(self.store, self.state, entry, self.key, self.scratch)

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

    def _write(self) -> None:
        publish, now = self.settings.publish, datetime.now(UTC)
        expires = now + timedelta(days=publish.valid_days) if publish.valid_days else None
        text = ledger.index_text(
            self.state, now.isoformat(timespec="seconds"), expires.isoformat(timespec="seconds") if expires else None
        )
        self.store.replace(ledger.INDEX, self.key.clearsign(text, self.scratch).encode())
        views = Views(publish, self.store, self.shelf, self.key, self.scratch)
        for path, data in views.files(self.state, now):
            self.store.replace(path, data)


@contextmanager
def session(settings: Config, workspace: Workspace, to: str | None) -> Iterator[Session]:
    """Open a store and read its state. to: its URL, if not the one in foundry.yml. Raises as its parts do."""
    with (
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, to, Path(name)) as store,
        signing.key(settings, workspace, Path(name)) as key,
    ):
        keys = key.public(Path(name) / "own.gpg")
        state = ledger.read(store, keys, Path(name))
        yield Session(settings, workspace, store, key, keys, Path(name), Shelf(store), state)
