"""A key that signs by saying so."""

from __future__ import annotations

from pathlib import Path

from foundry import gpg


class FakeKey(gpg.Key):
    """Its signatures can be told from what they sign, and need no gpg."""

    def clearsign(self, text: str, scratch: Path) -> str:
        return f"signed by {self.fingerprint}\n{text}"

    def armored(self) -> str:
        return f"key of {self.fingerprint}\n"

    def detach(self, path: Path, target: Path, *, armor: bool = False) -> Path:
        target.write_text(f"{self.fingerprint} {armor} {path.read_text(encoding='utf-8')}", encoding="utf-8")
        return target


KEY = FakeKey((), "F00D", "Trial <trial@example.org>")
