"""OpenPGP by Debian's own gpg and gpgv: keys, signatures, and whether they hold."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foundry import files, run
from foundry.errors import CommandFailed, ConfigError, FoundryError

_QUIET = ("--batch", "--yes", "--no-tty")
_UNLOCKED = ("--pinentry-mode", "loopback", "--passphrase", "")


class BadSignature(FoundryError):
    """Something is not signed, or not by the key that was asked for, or not as it is now."""

    code = 10


@dataclass(frozen=True)
class Key:
    """A key that signs. command: the words of gpg that reach it. fingerprint: of the primary key, in hex."""

    command: tuple[str, ...]
    fingerprint: str
    user: str

    def clearsign(self, text: str, scratch: Path) -> str:
        """text with its signature around it (RFC 9580, section 7). scratch: a folder that files pass through."""
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".sign.") as folder:
            plain, signed = Path(folder) / "plain", Path(folder) / "signed"
            files.write(plain, text)
            self._sign("--clearsign", "--output", str(signed), str(plain))
            return signed.read_text(encoding="utf-8")

    def detach(self, path: Path, target: Path, *, armor: bool = False) -> Path:
        """Write the signature of a file to target; returns target."""
        self._sign(*(["--armor"] if armor else []), "--detach-sign", "--output", str(target), str(path))
        return target

    def public(self, target: Path) -> Path:
        """Write the public key to target, as gpgv takes it; returns target."""
        run.run([*self.command, "--output", target, "--export", self.fingerprint], name="gpg-export")
        return target

    def armored(self) -> str:
        """The public key, as people pass it on."""
        return run.capture([*self.command, "--armor", "--export", self.fingerprint], name="gpg-export") + "\n"

    def _sign(self, *words: str) -> None:
        run.run(
            [*self.command, "--local-user", self.fingerprint, *words],
            name="gpg-sign",
            what=f"signing with {self.fingerprint[-16:]}",
            hint="is the key there, its smartcard in, its passphrase known to gpg-agent? try: gpg --list-secret-keys",
        )


def throw_away(home: Path, user: str) -> Key:
    """A key without a passphrase in a home of its own, made where there is none."""
    command = _apart(home, *_UNLOCKED)
    if not (home / "made").exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        run.run([*command, "--quick-gen-key", user, "ed25519", "sign", "never"], name="make-key")
        (home / "made").touch()
    return only_key(command)


def own(name: str) -> Key:
    """A key of the user's own gpg: in its agent, or on a smartcard. name: as gpg takes it. Raises ConfigError."""
    return only_key(["gpg", *_QUIET], name)


def imported(path: Path, home: Path, passphrase: Path | None) -> Key:
    """The secret key in a file, in a new home below which nothing stays once that is removed. Raises ConfigError."""
    home.mkdir(mode=0o700)
    unlocked = ("--pinentry-mode", "loopback", "--passphrase-file", str(passphrase)) if passphrase else _UNLOCKED
    command = _apart(home, *unlocked)
    try:
        run.run([*command, "--import", path], name="gpg-import")
    except CommandFailed as error:
        raise ConfigError(f"publish.key_file: {path} holds no secret key", details=error.details) from error
    return only_key(command)


def _apart(home: Path, *options: str) -> list[str]:
    """gpg with a home of its own. It leaves an agent behind, which must not outlive it.

    The agent's socket goes to /run/user/UID where that is (GnuPG's manual, gpgconf --create-socketdir), else to the
    home, whose path may be too long for one; so gpg gets a /run/user that nobody else sees.
    """
    made = 'mkdir -p /run/user && mount -t tmpfs -o mode=0755 tmpfs /run/user && mkdir -m 0700 "/run/user/$(id -u)"'
    words = ["gpg", "--homedir", str(home), *_QUIET, *options]
    return run.contained(["sh", "-c", f'{made} && exec "$@"', "sh", *words])


def only_key(command: Sequence[str], name: str | None = None) -> Key:
    """The one secret key that command reaches, of a name if given. Raises ConfigError where it is not one."""
    asked = [name] if name else []
    listing = run.run([*command, "--with-colons", "--list-secret-keys", *asked], name="gpg-list", check=False).output
    rows = [line.split(":") for line in listing.splitlines()]
    keys = [rows[i + 1 :] for i, row in enumerate(rows) if row[0] == "sec" and row[1] not in "re"]
    if len(keys) != 1:
        which = f"{len(keys)} secret keys" if keys else "no secret key"
        raise ConfigError(
            f"publish.key: gpg has {which} {f'of {name}' if name else ''} that can sign".replace("  ", " "),
            hint="gpg --list-secret-keys shows them; give a whole fingerprint",
        )
    after = keys[0]
    fingerprint = next(row[9] for row in after if row[0] == "fpr")
    return Key(tuple(command), fingerprint, next((row[9] for row in after if row[0] == "uid"), ""))


def keyring(public: Path, scratch: Path) -> Path:
    """A public key as gpgv takes it, whether it was armored or not. Raises ConfigError for what is none."""
    data = public.read_bytes() if public.is_file() else b""
    if data.startswith(b"-----BEGIN PGP PUBLIC KEY"):
        target = scratch / "keyring.gpg"
        run.run(["gpg", *_QUIET, "--homedir", scratch, "--output", target, "--dearmor", public], name="dearmor")
        return target
    if not data or not data[0] & 0x80:
        raise ConfigError(f"{public} is no OpenPGP public key", hint="gpg --export --armor FINGERPRINT makes one")
    return public


def opened(path: Path, keys: Path, scratch: Path) -> str:
    """The text of a clear-signed file, once gpgv accepts its signature. Raises BadSignature.

    keys: a keyring as keyring() gives it.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".open.") as folder:
        text = Path(folder) / "text"
        _verify(path.name, [*_gpgv(keys), "--output", str(text), str(path)])
        return text.read_text(encoding="utf-8")


def check(path: Path, signature: Path, keys: Path) -> None:
    """Accept a file's detached signature, or raise BadSignature."""
    _verify(path.name, [*_gpgv(keys), str(signature), str(path)])


def _gpgv(keys: Path) -> list[str]:
    # gpgv looks for a relative name in the user's own gpg folder.
    return ["gpgv", "--keyring", str(keys.resolve())]


def _verify(name: str, words: list[str]) -> None:
    answer = run.run(words, name="gpgv", check=False)
    if answer.returncode != 0:
        raise BadSignature(f"{name}: its signature does not hold", details=answer.output, log=answer.log)
