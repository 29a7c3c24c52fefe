"""A user's own folder of gpg, in which keys of any kind are made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Short = Callable[[], Path]
"""Makes the path of a home that is short enough for an agent's socket."""

USER = "Release <release@example.org>"


class Home:
    """A folder of gpg, with an agent that ends with end()."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700)

    def gpg(self, *words: str, secret: str = "", text: str | None = None) -> str:
        unlocked = ("--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", secret)
        ended = subprocess.run(
            ["gpg", "--homedir", str(self.folder), *unlocked, *words],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return ended.stdout

    def key(
        self, user: str = USER, secret: str = "", use: str = "sign", until: str = "never", at: str | None = None
    ) -> str:
        """A key, made now or at a time as gpg writes it; returns its fingerprint."""
        faked = ["--faked-system-time", at] if at else []
        self.gpg(*faked, "--quick-gen-key", user, "ed25519", use, until, secret=secret)
        return self.fingerprints(user)[0]

    def subkey(self, primary: str, until: str = "never") -> str:
        """A subkey that signs, made as the last one; returns its fingerprint."""
        self.gpg("--quick-add-key", primary, "ed25519", "sign", until)
        return self.fingerprints(primary)[-1]

    def fingerprints(self, name: str) -> list[str]:
        """Of a primary key and its subkeys."""
        rows = self.gpg("--with-colons", "--list-keys", name).splitlines()
        return [row.split(":")[9] for row in rows if row.startswith("fpr")]

    def export(self, name: str, target: Path) -> Path:
        """The public key as gpgv takes it; returns target."""
        self.gpg("--output", str(target), "--export", name)
        return target

    def revoke(self, primary: str) -> None:
        text = (self.folder / "openpgp-revocs.d" / f"{primary}.rev").read_text(encoding="utf-8")
        self.gpg("--import", text=text.replace(":-----BEGIN", "-----BEGIN"))

    def revoke_subkey(self, primary: str, number: int) -> None:
        """number: of the subkey, from 1."""
        self.gpg("--command-fd", "0", "--edit-key", primary, text=f"key {number}\nrevkey\ny\n0\n\ny\nsave\n")

    def clearsign(self, text: str, target: Path, by: str, *words: str) -> Path:
        """A text that a key, or exactly one subkey if by ends with "!", has signed; returns target."""
        self.gpg(*words, "--local-user", by, "--output", str(target), "--clearsign", text=text)
        return target

    def end(self) -> None:
        """End its agent."""
        subprocess.run(["gpgconf", "--homedir", str(self.folder), "--kill", "all"], check=True)

    def twin(self, folder: Path) -> Home:
        """A copy of it as it is now, with an agent of its own."""
        found = Home(folder)
        self.copy_to(folder)
        return found

    def copy_to(self, folder: Path) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
            elif path.is_file():
                shutil.copyfile(path, folder / path.name)
