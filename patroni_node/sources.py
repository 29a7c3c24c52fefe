"""Secrets and certificates: as text in node.yml, in a file of the node, or as a systemd credential."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patroni_node.errors import Key, NodeError, Problem
from patroni_node.paths import Paths

MAX_BYTES = 64 * 1024

Refusal = Callable[[Key, str], Problem]
"""Makes a problem of a key path and a message: Document.problem."""


@dataclass(frozen=True)
class Source:
    """Where one value comes from: exactly one of text, file and credential is set; the repr shows no text."""

    key: Key
    text: str | None = field(default=None, repr=False)
    file: Path | None = None
    credential: str | None = None


def parse(key: Key, value: Any) -> Source | None:
    """Return the source that node.yml's value at key describes; None for what the schema refuses."""
    if isinstance(value, str):
        return Source(key, text=value)
    if isinstance(value, dict) and isinstance(value.get("file"), str):
        return Source(key, file=Path(value["file"]))
    if isinstance(value, dict) and isinstance(value.get("credential"), str):
        return Source(key, credential=value["credential"])
    return None


class Reader:
    """Reads sources on the node."""

    def __init__(self, paths: Paths, refusal: Refusal) -> None:
        self._paths = paths
        self._refusal = refusal

    def refuse(self, key: Key, message: str) -> NodeError:
        """Return the error for a key; messages never quote a value."""
        return NodeError(self._refusal(key, message))

    def secret(self, source: Source) -> str:
        """Return a secret, without the line break that editors put at the end of a file.

        Raises:
            NodeError: when it cannot be read, is empty, or lies in a file that everybody may read.
        """
        text = self._read(source, private=True).strip("\r\n")
        if not text:
            raise self.refuse(source.key, "is empty: write the secret there")
        return text

    def public(self, source: Source) -> str:
        """Return a text that need not be kept from others, such as a certificate. Raises NodeError."""
        return self._read(source, private=False)

    def private(self, source: Source) -> str:
        """Return a text that must be kept from others, as it is. Raises NodeError."""
        return self._read(source, private=True)

    def _read(self, source: Source, *, private: bool) -> str:
        if source.text is not None:
            return source.text
        if source.credential is not None:
            return self._credential(source, source.credential)
        assert source.file is not None
        path = self._paths.root / source.file.relative_to("/")
        return self._file(source.key, path, str(source.file), private=private)

    def _credential(self, source: Source, name: str) -> str:
        for folder in self._paths.credentials:
            if (folder / name).exists():
                # systemd keeps these from everybody but root by itself (systemd.exec(5), CREDENTIALS).
                return self._file(source.key, folder / name, f"credential {name}", private=False)
        hint = "give it to the machine, or to patroni-node.service by LoadCredential= in a drop-in"
        raise self.refuse(source.key, f"there is no systemd credential {name}: {hint}")

    def _file(self, key: Key, path: Path, shown: str, *, private: bool) -> str:
        try:
            # O_NONBLOCK: a FIFO in the place of the file must not hang the boot.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
                status = os.fstat(stream.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise self.refuse(key, f"{shown} is not a regular file")
                if private and status.st_mode & 0o007:
                    raise self.refuse(key, f"{shown} may be read by everybody: chmod 0600 {shown}")
                raw = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise self.refuse(key, f"{shown} cannot be read ({error.strerror})") from None
        if len(raw) > MAX_BYTES:
            raise self.refuse(key, f"{shown} is larger than {MAX_BYTES // 1024} KiB")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse(key, f"{shown} is not UTF-8 text") from None
