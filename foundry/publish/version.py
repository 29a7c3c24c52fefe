"""What a published version is: its files with their digests, and what its manifest says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class File:
    """A file of a version. name: in the version's folder. size: bytes. sha256: hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Version:
    """One version of an image, as it lies in a store.

    image: the image's name, e.g. "debian-12". version: e.g. "20261124-b1ddda7d". files: all but the checksums and their
    signature. manifest: the image's own (foundry/image.py).
    """

    image: str
    version: str
    files: tuple[File, ...]
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, manifest: Mapping[str, Any], files: Sequence[File] = ()) -> Version:
        """The version that a manifest is about."""
        return cls(str(manifest["name"]), str(manifest["version"]), tuple(files), manifest)

    @property
    def folder(self) -> str:
        """The version's folder, relative to the store's root."""
        return f"images/{self.image}/{self.version}"

    @property
    def built(self) -> datetime:
        """When the image was built, UTC."""
        return datetime.fromisoformat(self.manifest["built"])

    @property
    def disk(self) -> File:
        """The disk that was verified."""
        return self.file(str(self.manifest["files"][0]["name"]))

    def file(self, name: str) -> File:
        """The file of a name. Raises KeyError."""
        for entry in self.files:
            if entry.name == name:
                return entry
        raise KeyError(name)
