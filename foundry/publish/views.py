"""What others than this program read of a store: apt, incus, LXD, sstream-query, and people with a browser.

All of it follows from the log and from what the versions hold, and is written anew with every change.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from foundry import gpg, log
from foundry.publish import aptrepo, bundle, formats, page, streams
from foundry.publish.ledger import Broken, State
from foundry.publish.shelf import Shelf, everything
from foundry.publish.stores import Store
from foundry.publish.version import File, Version
from foundry.settings import DOMAIN, Publish

DEFAULT_DOMAIN = "local.patroni-foundry"


@dataclass(frozen=True)
class Views:
    """What they are made with. scratch: a folder that files pass through.

    others: the store's other keys that may sign, armored, by fingerprint. signers: those of all that sign here, the
    oldest first; none but key where it says nothing.
    """

    settings: Publish
    store: Store
    shelf: Shelf
    key: gpg.Key
    scratch: Path
    others: Mapping[str, str] = field(default_factory=dict)
    signers: tuple[str, ...] = ()

    def files(self, state: State, now: datetime) -> Iterator[tuple[str, bytes]]:
        """Each file with its path, in the order in which readers may see them.

        A version that is not what was published is left out, and said so: the others must not wait for it.
        """
        whole = [(title, version) for title, version in everything(state) if self._whole(state, title, version)]
        yield from self._apt(state, whole, now)
        yield from self._streams(state, whole, now)
        listed: dict[str, list[page.Listed]] = {title: [] for title in state.versions}
        for title, version in reversed(whole):
            listed[title].append(self._listed(state, title, version))
        channels = {title: {c: stack[-1] for c, stack in cs.items()} for title, cs in state.channels.items()}
        yield page.PAGE, page.index(listed, channels, fingerprint=self.key.fingerprint).encode()

    def _whole(self, state: State, title: str, version: str) -> bool:
        try:
            for name in (formats.INDEX, bundle.VERDICT):
                self.shelf.read(state, title, version, name)
            if streams.disk(self._version(state, title, version)):
                self._stream(state, title, version)
        except Broken as error:
            log.info(f"left out of what apt, incus and browsers see: {error.brief}")
            return False
        return True

    def _apt(self, state: State, whole: list[tuple[str, str]], now: datetime) -> Iterator[tuple[str, bytes]]:
        valid = timedelta(days=self.settings.valid_days) if self.settings.valid_days else None
        root = self._address()
        known = "".join((self.key.armored(), *self.others.values()))
        # apt wants one signature that it knows, and takes no offence at others.
        key = replace(self.key, also=tuple(k for k in self.signers if k != self.key.fingerprint))
        for title, channels in state.channels.items():
            for channel, stack in channels.items():
                if (title, stack[-1]) in whole:
                    index = self.shelf.read(state, title, stack[-1], formats.INDEX)
                    yield from aptrepo.view(index, title, channel, key, self.scratch, date=now, valid_for=valid).items()
                    if root:
                        text = aptrepo.sources(f"{root}/{aptrepo.FOLDER}", aptrepo.suite_name(title, channel), known)
                        yield aptrepo.sources_path(title, channel), text.encode()

    def _address(self) -> str | None:
        """The URL at which readers find the store, as far as it is known."""
        if self.settings.address:
            return self.settings.address.rstrip("/")
        return self.store.url if self.store.url.startswith("file:") else None

    def _domain(self) -> str:
        host = urllib.parse.urlsplit(self.settings.address or "").hostname or ""
        turned = ".".join(reversed(host.split(".")))
        return self.settings.domain or (turned if re.fullmatch(DOMAIN, turned) else DEFAULT_DOMAIN)

    def _streams(self, state: State, whole: list[tuple[str, str]], now: datetime) -> Iterator[tuple[str, bytes]]:
        channels = {
            (title, channel): [self._served(state, title, v) for v in reversed(stack) if (title, v) in whole]
            for title, stacks in state.channels.items()
            for channel, stack in stacks.items()
            if (title, stack[-1]) in whole
        }
        # gpgv refuses what has a signature that it does not know beside one that it does: so it is one, by the key that
        # most have.
        key = replace(self.key, fingerprint=self.signers[0]) if self.signers else self.key
        yield from streams.view(channels, self._domain(), key, self.scratch, date=now).items()

    def _served(self, state: State, title: str, version: str) -> streams.Served:
        found = self._version(state, title, version)
        fingerprint = ""
        if streams.disk(found):
            fingerprint = str(self._stream(state, title, version)["combined_disk-kvm-img_sha256"])
        return streams.Served(found, fingerprint)

    def _version(self, state: State, title: str, version: str) -> Version:
        manifest = self.shelf.manifest(state, title, version)
        files = [File(str(f["name"]), int(f["size"]), str(f["sha256"])) for f in manifest["files"]]
        if any(f.name.endswith(".qcow2") for f in files):
            about = self._stream(state, title, version)
            files.append(File(streams.METADATA, int(about["size"]), str(about["sha256"])))
        return Version(title, version, tuple(files), manifest)

    def _stream(self, state: State, title: str, version: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.shelf.read(state, title, version, formats.STREAM))
        return found

    def _listed(self, state: State, title: str, version: str) -> page.Listed:
        found = self._version(state, title, version)
        verdict = json.loads(self.shelf.read(state, title, version, bundle.VERDICT))
        passed = sum(o["outcome"] == "passed" for o in verdict["outcomes"])
        return page.Listed(version, found.built.astimezone(UTC), found.disk.size, passed)
