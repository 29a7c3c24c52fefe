"""Where versions are published: one small interface, and its backends by the scheme of their URL.

A store is files below one root, which any web server or object storage can serve. Paths are relative to it, with "/".
Nothing here knows what the files mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from foundry.errors import FoundryError


class StoreError(FoundryError):
    """A store did not answer, or refused."""

    code = 9


class Missing(StoreError):
    """A store has no file of this path."""


class Taken(StoreError):
    """A file that was to be made is there already: somebody else was first."""


class Store(Protocol):
    """One root of files. Every method raises StoreError where the store does not answer, or answers with an error.

    A file appears whole or not at all, whatever is killed meanwhile; one that is being written is seen by no reader.
    """

    url: str

    def size(self, path: str) -> int | None:
        """The bytes of a file; None where there is none."""
        ...

    def read(self, path: str) -> bytes:
        """The contents of a small file. Raises Missing."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names directly in a folder, sorted, those of folders with a "/" at the end; nothing where it is none."""
        ...

    def download(self, path: str, target: Path) -> None:
        """Write a file of the store to target, whole or not at all. Raises Missing."""
        ...

    def upload(self, source: Path, path: str, digest: str) -> int:
        """Bring a file to the store, going on where an earlier, interrupted call stopped; returns the bytes sent.

        digest: the source's sha256, compared with what the store has afterwards, before the file appears. A file of
        this path and this size is taken for the same one and not sent again. Raises CorruptArtifact when it differs.
        """
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a small file in one step, in place of an older one."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a small file that must be new. Of several that do so at once, one succeeds. Raises Taken."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if it is there, and the folders that become empty by that."""
        ...
