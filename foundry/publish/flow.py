"""Publishing, promoting and rolling back: what is done to a store, in the order in which readers may see it.

First the files, which nothing names yet; then the log's entry, which one of several publishers gets; then the index.
Whoever is killed in between leaves what was served before, and the next run goes on from the log.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foundry import config, files, gpg, image, lock, log
from foundry.config import Config
from foundry.errors import ConfigError, CorruptArtifact
from foundry.publish import bundle, gate, ledger, signing
from foundry.publish.bundle import Bundle
from foundry.publish.documents import Documents
from foundry.publish.ledger import Broken, Entry, State
from foundry.publish.stores import Missing, Store, open_store
from foundry.publish.version import Version
from foundry.settings import CHANNEL
from foundry.workspace import Workspace

KEY = "key.asc"
SMALL = 8_000_000
"""Bytes of a file that is read back to be compared; larger ones are compared by the store while they are uploaded."""


@dataclass
class Session:
    """A store that is open for changes. key: signs them. scratch: removed at the end."""

    settings: Config
    workspace: Workspace
    store: Store
    key: gpg.Key
    keys: Path
    scratch: Path
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
            when=_now(),
            **facts,
        )
        self.state = ledger.append(self.store, self.state, entry, self.key, self.scratch)

    def show(self) -> None:
        """Let the store's readers see the state."""
        days = self.settings.publish.valid_days
        expires = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds") if days else None
        text = ledger.index_text(self.state, _now(), expires)
        self.store.replace(ledger.INDEX, self.key.clearsign(text, self.scratch).encode())


@contextmanager
def session(settings: Config, workspace: Workspace, to: str | None) -> Iterator[Session]:
    """Open a store and read its state. to: its URL, if not the one in foundry.yml. Raises as its parts do."""
    store = open_store(to or settings.publish.url(workspace.root) or str(workspace.store))
    workspace.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name:
        scratch = Path(name)
        with signing.key(settings, workspace, scratch) as key:
            keys = key.public(scratch / "own.gpg")
            found = Session(settings, workspace, store, key, keys, scratch)
            found.state = ledger.read(store, keys, scratch)
            yield found


def publish(
    settings: Config, workspace: Workspace, *, name: str | None, manifest: Path | None, to: str | None, channel: str
) -> list[str]:
    """Bring a proved image to a store, and point a channel at it; returns lines for a person.

    manifest: of the image, if not the newest one. Raises Refused, Conflict, ConfigError, StoreError and others.
    """
    _check_channel(channel)
    release = (
        image.load((workspace.root / manifest).parent)
        if manifest
        else image.newest(workspace, config.pick_image(settings, name))
    )
    gate.admit(release, settings, workspace)
    with lock.held(workspace, "wait until it has ended"), session(settings, workspace, to) as open_:
        title, version = str(release.manifest["name"]), str(release.manifest["version"])
        known = open_.state.versions.get(title, {}).get(version)
        sent = 0
        if known is None:
            documents = Documents(workspace, open_.key, _builder(open_), _published(open_, title, channel))
            made = bundle.make(release, workspace.stage("releases") / version, open_.key, [documents.write])
            try:
                sent = _upload(open_.store, made)
            finally:
                shutil.rmtree(made.folder)
            known = made.sums
        before = open_.state.current(title, channel)
        if before != version or version not in open_.state.versions.get(title, {}):
            open_.append("publish", title, version, channel=channel, before=before, sums=known)
        _publish_key(open_)
        open_.show()
        retired = _retire(open_, title)
        return [
            f"image    {title} {version}",
            f"sent     {files.human(sent)} to {open_.store.url}",
            f"channel  {channel}: {before or 'nothing'} -> {version}",
            *(f"retired  {old}" for old in retired),
        ]


def _upload(store: Store, made: Bundle) -> int:
    """Bring all files of a version to a store where nothing names it yet; returns the bytes sent."""
    sent = 0
    for source, path, digest in made.uploads():
        log.activity(f"publish: {path}")
        sent += store.upload(source, path, digest)
        if source.stat().st_size <= SMALL and hashlib.sha256(store.read(path)).hexdigest() != digest:
            # Of the same size, from a run that was killed: what it had is not what was signed now.
            store.remove(path)
            sent += store.upload(source, path, digest)
    for source, path, _ in made.uploads():
        if store.size(path) != source.stat().st_size:
            raise CorruptArtifact(f"{path} in {store.url} is not what was uploaded", hint="run it again")
    return sent


def _builder(open_: Session) -> str:
    return open_.settings.publish.builder or f"openpgp4fpr:{open_.key.fingerprint.lower()}"


def _published(open_: Session, title: str, channel: str) -> Version | None:
    """The version that a channel points at, as its manifest tells it. Raises Broken."""
    current = open_.state.current(title, channel)
    if current is None:
        return None
    folder = f"images/{title}/{current}"
    sums = open_.store.read(f"{folder}/{bundle.SUMS}")
    manifest = open_.store.read(f"{folder}/{image.MANIFEST}")
    listed = bundle.parse_sums(sums.decode())
    if hashlib.sha256(sums).hexdigest() != open_.state.versions[title][current] or hashlib.sha256(
        manifest
    ).hexdigest() != listed.get(image.MANIFEST):
        raise Broken(f"{folder} in {open_.store.url} is not what was published", hint="see `./inv verify-release`")
    return Version(title, current, (), json.loads(manifest))


def _publish_key(open_: Session) -> None:
    try:
        open_.store.read(KEY)
    except Missing:
        open_.store.replace(KEY, open_.key.armored().encode())


def promote(settings: Config, workspace: Workspace, version: str, *, channel: str, to: str | None) -> list[str]:
    """Point a channel at a version that is published; no image moves. Raises ConfigError where there is none."""
    _check_channel(channel)
    with session(settings, workspace, to) as open_:
        title = _image_of(open_.state, version)
        before = open_.state.current(title, channel)
        if before != version:
            open_.append("promote", title, version, channel=channel, before=before)
        open_.show()
        return [f"channel  {channel} of {title}: {before or 'nothing'} -> {version}"]


def rollback(settings: Config, workspace: Workspace, channel: str, *, name: str | None, to: str | None) -> list[str]:
    """Point a channel at the version before; no image moves. Raises ConfigError where there is none."""
    with session(settings, workspace, to) as open_:
        title = config.pick_image(settings, name)
        stack = open_.state.channels.get(title, {}).get(channel, ())
        if len(stack) < 2:
            has = f"points at {stack[0]}, its first version" if stack else "points at nothing"
            raise ConfigError(f"rollback: {channel} of {title} {has}", hint="`./inv releases` shows what there is")
        open_.append("rollback", title, stack[-2], channel=channel, before=stack[-1])
        open_.show()
        return [f"channel  {channel} of {title}: {stack[-1]} -> {stack[-2]}"]


def _retire(open_: Session, title: str) -> list[str]:
    """Take the oldest versions out, but keep those that a channel points at; returns their names."""
    versions = list(open_.state.versions.get(title, {}))
    pointed = open_.state.pointed(title)
    old = [v for v in versions[: max(0, len(versions) - open_.settings.publish.keep)] if v not in pointed]
    for version in old:
        open_.append("retire", title, version)
    if old:
        open_.show()
    for version in old:
        _remove(open_.store, title, version)
    return old


def _remove(store: Store, title: str, version: str) -> None:
    folder = f"images/{title}/{version}"
    # What makes the version whole goes first.
    for name in sorted(store.names(folder), key=lambda n: (n != bundle.SIGNATURE, n != bundle.SUMS, n)):
        store.remove(f"{folder}/{name}")


def _check_channel(name: str) -> None:
    if not re.fullmatch(CHANNEL, name):
        raise ConfigError(
            f"--channel: {name!r} is no name of a channel", hint="1 to 31 of a-z, 0-9 and -, the first of them a letter"
        )


def _image_of(state: State, version: str) -> str:
    found = [title for title, versions in state.versions.items() if version in versions]
    if not found:
        known: Sequence[str] = [v for versions in state.versions.values() for v in versions]
        raise ConfigError(
            f"there is no version {version} in the store",
            hint=f"there are {', '.join(known)}" if known else "`./inv publish` brings one there",
        )
    return found[0]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
