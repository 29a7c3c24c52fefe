"""What goes when a store has more versions than it is to keep, and what runs that were killed have left of it."""

from __future__ import annotations

import hashlib

from foundry import log
from foundry.publish import aptrepo, bundle, formats
from foundry.publish.ledger import Broken
from foundry.publish.session import Session
from foundry.publish.shelf import everything
from foundry.publish.stores import Missing, StoreError, checked

# An index has a kilobyte for each of some hundred packages.
_LARGEST = 8 << 20


def retire(open_: Session, title: str) -> list[str]:
    """Take the oldest versions of an image out, but keep those that a channel points at; returns their names.

    The log and the index say so first; then the files go, also those that an earlier run could not come to.
    """
    versions = list(open_.state.versions.get(title, {}))
    pointed = open_.state.pointed(title)
    old = [v for v in versions[: max(0, len(versions) - open_.settings.publish.keep)] if v not in pointed]
    for version in old:
        open_.append("retire", title, version)
    if old:
        open_.show()
    there = {name.rstrip("/") for name in open_.store.names(f"images/{title}")}
    for version in there.intersection(open_.state.retired.get(title, ())):
        _remove(open_, title, version)
    open_.store.sweep()
    return old


def _remove(open_: Session, title: str, version: str) -> None:
    store, folder = open_.store, f"images/{title}/{version}"
    # Whoever else may write there may have left a folder, or a name that none of ours has.
    names = [name for name in store.names(folder) if _is_path(f"{folder}/{name}")]
    # What makes the version whole goes first, and what tells the rest of it last.
    first = {bundle.SIGNATURE: 0, bundle.SUMS: 1, formats.INDEX: 3}
    try:
        index = store.read(f"{folder}/{formats.INDEX}") if formats.INDEX in names else b""
    except Missing:
        # Another publisher is removing it as well, and its index goes last.
        return
    for name in sorted(names, key=lambda n: (first.get(n, 2), n)):
        if name == formats.INDEX:
            try:
                doomed = _only_in(open_, title, index)
            except Broken as error:
                # It stays, so that a later run finds here what else has to go.
                log.info(f"packages of {version} are not removed: {error.brief}")
                return
            for path in doomed:
                store.remove(path)
        store.remove(f"{folder}/{name}")


def _only_in(open_: Session, title: str, index: bytes) -> list[str]:
    """What apt reads of an index, and of no version that stays. Raises Broken where one of those is damaged."""
    kept = [open_.shelf.read(open_.state, *which, formats.INDEX) for which in everything(open_.state)]
    found = [f"{aptrepo.FOLDER}/{path}" for path in aptrepo.unused(_pool(index), kept)]
    if index not in kept and len(index) <= _LARGEST:
        digests = {hashlib.sha256(data).hexdigest() for data in aptrepo.packed(index)}
        for channel in open_.state.channels.get(title, {}):
            area = aptrepo.by_hash(title, channel)
            found += [f"{area}/{name}" for name in open_.store.names(area) if name in digests]
    return found


def _pool(index: bytes) -> list[str]:
    """The packages in an index of a version that is no longer signed, so it could be anything."""
    try:
        paths = [entry.path for entry in aptrepo.entries(index)] if len(index) <= _LARGEST else []
    except (KeyError, ValueError):
        return []
    return [path for path in paths if path.startswith("pool/") and _is_path(path)]


def _is_path(path: str) -> bool:
    try:
        return bool(checked(path))
    except StoreError:
        return False
