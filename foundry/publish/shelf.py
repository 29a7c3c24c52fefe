"""What is published, read back: nothing of a version is believed that its checksums, named by the log, do not say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from foundry import image
from foundry.publish import bundle
from foundry.publish.ledger import Broken, State
from foundry.publish.stores import Missing, Store
from foundry.publish.version import Version


@dataclass(frozen=True)
class Shelf:
    """The versions of a store. What was read once is kept, since it never changes."""

    store: Store
    _kept: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def read(self, state: State, title: str, version: str, name: str) -> bytes:
        """A small file of a version. Raises Broken where it is not what was published, or is none of it."""
        folder = f"images/{title}/{version}"
        sums = self._checked(f"{folder}/{bundle.SUMS}", state.versions[title][version])
        digest = bundle.parse_sums(sums.decode()).get(name)
        if digest is None:
            raise Broken(
                f"{folder} in {self.store.url} has no {name}",
                hint="was it published by an older program? `./inv publish` brings a new version there",
            )
        return self._checked(f"{folder}/{name}", digest)

    def _checked(self, path: str, digest: str) -> bytes:
        kept = self._kept.get((path, digest))
        if kept is not None:
            return kept
        try:
            data = self.store.read(path)
        except Missing as error:
            raise Broken(f"{path} is missing in {self.store.url}", hint="see `./inv verify-release`") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise Broken(f"{path} in {self.store.url} is not what was published", hint="see `./inv verify-release`")
        self._kept[path, digest] = data
        return data

    def manifest(self, state: State, title: str, version: str) -> Mapping[str, Any]:
        """A version's manifest. Raises Broken."""
        found: Mapping[str, Any] = json.loads(self.read(state, title, version, image.MANIFEST))
        return found

    def version(self, state: State, title: str, version: str) -> Version:
        """A version as its manifest tells it, without its files. Raises Broken."""
        return Version(title, version, (), self.manifest(state, title, version))


def everything(state: State) -> Iterator[tuple[str, str]]:
    """Each image's name with each of its versions."""
    for title, versions in state.versions.items():
        for version in versions:
            yield title, version
