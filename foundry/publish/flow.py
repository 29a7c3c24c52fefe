"""Publishing, promoting and rolling back: what is done to a store, in the order in which readers may see it.

First the files, which nothing names yet; then the log's entry, which one of several publishers gets; then the index.
Whoever is killed in between leaves what was served before, and the next run goes on from the log.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from foundry import config, files, image, lock, log
from foundry.config import Config
from foundry.errors import ConfigError, CorruptArtifact
from foundry.publish import aptrepo, bundle, formats, gate, retention
from foundry.publish.bundle import Bundle
from foundry.publish.documents import Documents
from foundry.publish.formats import Formats, Repository
from foundry.publish.ledger import Conflict, State
from foundry.publish.session import Session, session
from foundry.publish.shelf import everything
from foundry.publish.stores import Missing
from foundry.publish.version import Version
from foundry.settings import CHANNEL
from foundry.workspace import Workspace

Upload = tuple[Path, str, str]


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
        before, sent = open_.state.current(title, channel), 0
        if known is None:
            with _bundled(open_, release, channel) as (made, packages):
                claim, *others = made.uploads()
                uploads = [claim, *packages.uploads(), *others]
                told = {f"{aptrepo.FOLDER}/{e.path}" for t, v in everything(open_.state) for e in _entries(open_, t, v)}
                sent = _upload(open_, uploads, told, claim)
                _refuse_another(open_, claim)
                open_.append("publish", title, version, channel=channel, before=before, sums=made.sums)
                # Another publisher may have taken packages out before it could know that they are needed, or have begun
                # to bring this very version, made elsewhere: it is this one's now.
                lacking = [u for u in uploads if open_.store.size(u[1]) is None]
                sent += _upload(open_, lacking if _same(open_, claim) else uploads, told)
        elif before != version:
            open_.append("publish", title, version, channel=channel, before=before, sums=known)
        open_.show()
        retired = retention.retire(open_, title)
        return [
            f"image    {title} {version}",
            f"sent     {files.human(sent)} to {open_.store.url}",
            f"channel  {channel}: {before or 'nothing'} -> {version}",
            *(f"retired  {old}" for old in retired),
        ]


@contextmanager
def _bundled(open_: Session, release: image.Release, channel: str) -> Iterator[tuple[Bundle, Repository]]:
    """Make all files of a version, which are removed after the block."""
    workspace, title, version = open_.workspace, str(release.manifest["name"]), str(release.manifest["version"])
    with formats.repository(workspace, release.manifest) as packages:
        others = {f"{t} {v}": open_.shelf.read(open_.state, t, v, formats.INDEX) for t, v in everything(open_.state)}
        aptrepo.refuse_changed(packages.index, others)
        parts = [
            Formats(packages, open_.key, workspace.templates / "offline").write,
            Documents(workspace, open_.key, _builder(open_), _published(open_, title, channel)).write,
        ]
        made = bundle.make(release, workspace.stage("releases") / version, open_.key, parts)
        try:
            yield made, packages
        finally:
            shutil.rmtree(made.folder)


def _upload(open_: Session, uploads: Iterable[Upload], told: Collection[str], claim: Upload | None = None) -> int:
    """Bring files to a store, as they are here, where they may not be named yet; returns the bytes sent.

    told: paths of what was published already, which is the same. claim: the first of the files; no other that is there
    is replaced where that is not this one any more. Raises Conflict.
    """
    store, sent = open_.store, 0
    for source, path, digest in uploads:
        log.activity(f"publish: {path}")
        there, size = store.size(path), source.stat().st_size
        if path not in told and there is not None and not _same(open_, (source, path, digest)):
            # From a run that was killed: what it had is not what was signed now. Or somebody is bringing it.
            if claim and path != claim[1]:
                _refuse_another(open_, claim)
            store.remove(path)
        sent += store.upload(source, path, digest)
        if store.size(path) != size:
            raise CorruptArtifact(f"{path} in {store.url} is not what was uploaded", hint="run it again")
    return sent


def _entries(open_: Session, title: str, version: str) -> list[aptrepo.Entry]:
    return aptrepo.entries(open_.shelf.read(open_.state, title, version, formats.INDEX))


def _refuse_another(open_: Session, claim: Upload) -> None:
    """Raise Conflict where somebody else has begun to bring the same version since, made elsewhere."""
    if not _same(open_, claim):
        raise Conflict(
            f"somebody else is bringing the same version to {open_.store.url}",
            details=f"{claim[1]} is not what it was when this began",
            hint="wait for that one, then look at `./inv releases`; or run it again",
        )


def _same(open_: Session, upload: Upload) -> bool:
    source, path, digest = upload
    target, size = open_.scratch / "same", source.stat().st_size
    if open_.store.size(path) != size:
        return False
    try:
        # Somebody else may have put anything there, of any size.
        open_.store.download(path, target, size)
    except Missing:
        # Another publisher has taken it out since.
        return False
    try:
        return files.sha256(target) == digest
    finally:
        target.unlink()


def _builder(open_: Session) -> str:
    return open_.settings.publish.builder or f"openpgp4fpr:{open_.key.fingerprint.lower()}"


def _published(open_: Session, title: str, channel: str) -> Version | None:
    """The version that a channel points at. Raises Broken."""
    current = open_.state.current(title, channel)
    return open_.shelf.version(open_.state, title, current) if current else None


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


def renew(settings: Config, workspace: Workspace, *, to: str | None, accept: str | None = None) -> list[str]:
    """Let a store be believed for another while, without a change; returns lines for a person. accept: see trust.

    A store of before, whose log does not name it or says not for how long its index is good, is carried over by that.
    """
    with session(settings, workspace, to, accept=accept) as open_:
        if not open_.state.sequence and accept:
            return ["store    nothing is in it any more: `./inv publish` begins anew"]
        if not open_.state.sequence:
            raise ConfigError(
                f"there is nothing in {open_.store.url} yet", hint="`./inv publish` brings a version there"
            )
        if not open_.settled:
            open_.append("renew", "", "")
        open_.show()
        state = open_.state
        return [
            f"store    {state.store}, {state.sequence} entries in its log",
            f"index    signed anew, good for {state.valid_days} days; a timer can do this: docs/publishing.md",
        ]


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
