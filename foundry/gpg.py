"""OpenPGP by Debian's own gpg: keys, signatures, and whether they hold."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foundry import files, openpgp, run
from foundry.errors import CommandFailed, ConfigError, FoundryError

_QUIET = ("--batch", "--yes", "--no-tty")
_UNLOCKED = ("--pinentry-mode", "loopback", "--passphrase", "")

Standing = Literal["good", "expired", "revoked", "replaced"]
"""How a key stands now that has signed something. Of replacing, gpg knows nothing: that is said by a store's log."""

_WHY: dict[Standing, str] = {
    "good": "holds",
    "expired": "has expired",
    "revoked": "was revoked",
    "replaced": "was replaced by another, and the while is over in which both sign",
}
# GnuPG's doc/DETAILS: exactly one of these comes with each signature, BADSIG and ERRSIG among the others.
_STANDINGS: dict[str, Standing] = {
    "GOODSIG": "good",
    "EXPKEYSIG": "expired",
    "REVKEYSIG": "revoked",
}
# RFC 4880, section 9.1: RSA, Elgamal, DSA; the others' sizes are enough, or gpg makes no keys of them.
_OLD_KINDS, _ENOUGH = {"1", "2", "3", "16", "17", "20"}, 2048
# RFC 4880, section 9.4: SHA-256, SHA-384, SHA-512, SHA-224.
_STRONG = {"8", "9", "10", "11"}

# For what anybody may have written: a kilobyte can be gigabytes, compressed, such as a key with a million names.
_MEMORY, _LARGEST, _SECONDS = 1 << 29, 1 << 28, 20


# A ramfs is never swapped out, as a tmpfs may be. The agent's socket: see _apart().
_HOLD = """
mount -t ramfs -o mode=0700 ramfs "$1"
mkdir -p /run/user
mount -t tmpfs -o mode=0755 tmpfs /run/user
mkdir -m 0700 "/run/user/$(id -u)"
trap 'exit 0' INT TERM
echo up
sleep infinity &
wait
"""


class BadSignature(FoundryError):
    """Something is not signed, or not by the key that was asked for, or not as it is now."""

    code = 10


@dataclass(frozen=True)
class Signature:
    """Who has signed something. key: the fingerprint of the primary key. by_primary: by itself, not by a subkey."""

    key: str
    by_primary: bool
    standing: Standing


@dataclass(frozen=True)
class Key:
    """A key that signs. command: the words of gpg that reach it. fingerprint: of the primary key, in hex.

    also: others that the same gpg has, which sign whatever this one does. exact: not a subkey, the primary key itself.
    """

    command: tuple[str, ...]
    fingerprint: str
    user: str
    also: tuple[str, ...] = ()
    exact: bool = False

    def clearsign(self, text: str, scratch: Path) -> str:
        """text with its signature around it (RFC 9580, section 7). scratch: a folder that files pass through."""
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".sign.") as folder:
            plain, signed = Path(folder).absolute() / "plain", Path(folder).absolute() / "signed"
            files.write(plain, text)
            self._sign("--clearsign", "--output", str(signed), str(plain))
            return signed.read_text(encoding="utf-8")

    def detach(self, path: Path, target: Path, *, armor: bool = False) -> Path:
        """Write the signature of a file to target; returns target."""
        self._sign(
            *(["--armor"] if armor else []), "--detach-sign", "--output", str(target.absolute()), str(path.absolute())
        )
        return target

    def public(self, target: Path, *more: str) -> Path:
        """Write the public key to target, as gpgv takes it; returns target. more: to go with it, if gpg has them."""
        target.write_bytes(_exported(self.command, target.absolute(), self.fingerprint, *more))
        return target

    def armored(self) -> str:
        """The public key, as people pass it on."""
        with tempfile.TemporaryDirectory(prefix=files.own_prefix()) as folder:
            return openpgp.armored(_exported(self.command, Path(folder) / "key", self.fingerprint))

    def also_signs_as(self, fingerprint: str) -> bool:
        """Whether the same gpg signs with another key as well, without asking anybody for anything."""
        silent = () if "--pinentry-mode" in self.command else ("--pinentry-mode", "error")
        words = [*self.command, *silent, "--local-user", fingerprint, "--output", "/dev/null", "--detach-sign"]
        return run.run([*words, "/dev/null"], name="gpg-try", check=False).returncode == 0

    def _sign(self, *words: str) -> None:
        users = (self.fingerprint + "!" * self.exact, *self.also)
        run.run(
            # Of a log each entry has to hold for ever, whatever the user's own gpg.conf says.
            [*self.command, "--default-sig-expire", "0", *(w for u in users for w in ("--local-user", u)), *words],
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


def own(name: str, setting: str = "publish.key") -> Key:
    """A key of the user's own gpg: in its agent, or on a smartcard. name: as gpg takes it. Raises ConfigError."""
    return only_key(["gpg", *_QUIET], name, setting)


@contextmanager
def imported(path: Path, home: Path, passphrase: Path | None, setting: str = "publish.key_file") -> Iterator[Key]:
    """The secret key in a file, in a home that is in memory alone, and ends with the block. Raises ConfigError.

    home: a folder that is made, and stays empty: what is mounted there only gpg sees. Whatever ends this process, its
    end ends the namespace and with it the only copy.
    """
    home.mkdir(mode=0o700)
    unlocked = (
        ("--pinentry-mode", "loopback", "--passphrase-file", str(passphrase.resolve())) if passphrase else _UNLOCKED
    )
    with run.Process(run.contained(["sh", "-euc", _HOLD, "sh", str(home.resolve())]), name="gpg-home") as holder:
        try:
            if not any(line == "up" for line in holder.heard()):
                raise CommandFailed(f"{setting}: no place in memory for it", details="\n".join(holder.lines))
            where = f"/proc/{holder.popen.pid}/ns"
            # pid_for_children: unshare(1), which we know, has made the namespace for its child.
            within = ("nsenter", f"--mount={where}/mnt", f"--pid={where}/pid_for_children", "--")
            command = (*within, "gpg", "--homedir", str(home.resolve()), *_QUIET, *unlocked)
            try:
                run.run([*command, "--import", path.resolve()], name="gpg-import")
            except CommandFailed as error:
                raise ConfigError(f"{setting}: {path} holds no secret key", details=error.details) from error
            yield only_key(command, setting=setting)
        finally:
            holder.stop(grace=0)


def _apart(home: Path, *options: str) -> list[str]:
    """gpg with a home of its own. It leaves an agent behind, which must not outlive it.

    The agent's socket goes to /run/user/UID where that is (GnuPG's manual, gpgconf --create-socketdir), else to the
    home, whose path may be too long for one; so gpg gets a /run/user that nobody else sees.
    """
    made = 'mkdir -p /run/user && mount -t tmpfs -o mode=0755 tmpfs /run/user && mkdir -m 0700 "/run/user/$(id -u)"'
    words = ["gpg", "--homedir", str(home), *_QUIET, *options]
    return run.contained(["sh", "-c", f'{made} && exec "$@"', "sh", *words])


def only_key(command: Sequence[str], name: str | None = None, setting: str = "publish.key") -> Key:
    """The one secret key that command reaches, of a name if given. Raises ConfigError where it is not one."""
    asked = [name] if name else []
    listing = run.run([*command, "--with-colons", "--list-secret-keys", *asked], name="gpg-list", check=False).output
    rows = [line.split(":") for line in listing.splitlines()]
    keys = [rows[i + 1 :] for i, row in enumerate(rows) if row[0] == "sec" and row[1] not in "re"]
    # Of a fingerprint gpg also lists what has it for a subkey, which anybody can make.
    exact = [after for after in keys if next(row[9] for row in after if row[0] == "fpr") == (name or "").upper()]
    keys = exact or keys
    if len(keys) != 1:
        which = f"{len(keys)} secret keys" if keys else "no secret key"
        raise ConfigError(
            f"{setting}: gpg has {which} {f'of {name}' if name else ''} that can sign".replace("  ", " "),
            hint="gpg --list-secret-keys shows them; give a whole fingerprint",
        )
    after = keys[0]
    fingerprint = next(row[9] for row in after if row[0] == "fpr")
    return Key(tuple(command), fingerprint, next((row[9] for row in after if row[0] == "uid"), ""))


def keyring(public: Path, scratch: Path) -> Path:
    """A public key as gpgv takes it, whether it was armored or not. Raises ConfigError for what is not one key."""
    data = public.read_bytes() if public.is_file() else b""
    target = public
    if data.startswith(b"-----BEGIN PGP PUBLIC KEY"):
        target = scratch / "keyring.gpg"
        run.run(["gpg", *_QUIET, "--homedir", scratch, "--output", target, "--dearmor", public], name="dearmor")
    elif not data or not data[0] & 0x80:
        raise ConfigError(f"{public} is no OpenPGP public key", hint="gpg --export --armor FINGERPRINT makes one")
    count = len(primaries(target))
    if count != 1:
        # Who holds either could sign in the other's name, and what was seen before is remembered of one.
        raise ConfigError(
            f"{public} holds {count or 'no'} OpenPGP keys, where one is needed: the publisher's",
            hint="gpg --export --armor FINGERPRINT > FILE writes one (with its subkeys), and any other that has it for "
            "a subkey, which anybody can make: gpg --show-keys FILE shows them; remove such a one from your gpg first",
        )
    return target


def primary(keys: Path) -> str:
    """The fingerprint of the primary key in a keyring as keyring() gives it."""
    (found,) = primaries(keys)
    return found


def primaries(keys: Path, *, holding: bool = False) -> set[str]:
    """The fingerprints of the primary keys in a keyring. holding: of those that have not expired or been revoked."""
    pairs = itertools.pairwise(_rows(keys))
    found = [(row, after) for row, after in pairs if row[0] == "pub" and after[0] == "fpr"]
    return {after[9] for row, after in found if not (holding and row[1] in ("r", "e"))}


def _rows(path: Path) -> list[list[str]]:
    with _reading() as words:
        listing = run.run([*words, "--with-colons", "--show-keys", path], name="gpg-list", check=False).output
    return [line.split(":") for line in listing.splitlines()]


def weakness(keys: Path) -> str | None:
    """What makes a key too weak to be begun with, as far as its kind and size tell; None where nothing does."""
    for row in _rows(keys):
        used = row[0] == "pub" or (row[0] == "sub" and "s" in row[11] and row[1] not in ("r", "e"))
        if used and row[3] in _OLD_KINDS and int(row[2]) < _ENOUGH:
            return f"{'the primary key' if row[0] == 'pub' else 'a subkey'} has {row[2]} bits, of {_ENOUGH} at least"
    return None


def merged(keys: Path, others: Iterable[bytes], scratch: Path, *, every: bool = False) -> Path:
    """The key of a keyring with what others, which may be anything, add to that very key; returns a new keyring.

    What is added is what the primary key itself has signed: subkeys, dates of expiry, revocations.
    every: with all keys that are in others. Whoever goes by such a keyring asks of each signature whose it is.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="merge.") as folder, _reading() as words:
        run.run([*words, "--import", keys], name="gpg-import")
        for number, data in enumerate(others):
            source = Path(folder) / str(number)
            source.write_bytes(data)
            options = ["--import-options", "import-minimal" if every else "merge-only,import-minimal"]
            run.run([*_bounded(), *words, *options, "--import", source], name="gpg-import", check=False)
        target = Path(folder).with_suffix(".gpg")
        run.run([*words, "--output", target, "--export"], name="gpg-export")
    return target


def taken(ring: Path, fingerprints: Sequence[str], scratch: Path) -> tuple[Path, dict[str, str]]:
    """Those of a keyring's keys that are asked for: as a keyring of their own, and each as people pass it on."""
    there = openpgp.blocks(ring.read_bytes())
    found = {key: there[key] for key in fingerprints if key in there}
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="keys.", suffix=".gpg", delete=False) as target:
        target.write(b"".join(found.values()))
    return Path(target.name), {key: openpgp.armored(data) for key, data in found.items()}


def _exported(command: Sequence[str], target: Path, *fingerprints: str) -> bytes:
    """Public keys, and not those that have one of them for a subkey. target: where they pass through."""
    run.run([*command, "--output", target, "--export", *fingerprints], name="gpg-export")
    return openpgp.only(target.read_bytes(), fingerprints)


def opened(path: Path, keys: Path, scratch: Path) -> str:
    """The text of a clear-signed file, once its signature holds: now, by this key. Raises BadSignature.

    keys: a keyring as keyring() gives it.
    """
    text, (signature,) = signed_once(path, keys, scratch)
    _refuse(path.name, signature.standing)
    return text


def signed_once(path: Path, keys: Path, scratch: Path, *, several: bool = False) -> tuple[str, tuple[Signature, ...]]:
    """What opened() returns, and who has signed it, of the keys of a keyring. Raises BadSignature where nobody has.

    several: there may be more than one signature, each by one of these keys.
    A signature by a key that has expired or was revoked since proves nothing: ask for it only where something else
    that is signed by a key that holds vouches for the text, or to say what is wrong.
    """
    # The other kinds of signed messages may be compressed, to any size.
    with path.open("rb") as stream:
        if not stream.read(64).startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
            raise BadSignature(f"{path.name}: its signature does not hold: it is no clear-signed text")
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".open.") as folder:
        text = Path(folder) / "text"
        found = _verify(path.name, ["--output", str(text), "--verify", str(path)], keys, several)
        return text.read_text(encoding="utf-8"), found


def check(path: Path, signature: Path, keys: Path, *, once: bool = False, several: bool = False) -> None:
    """Accept a file's detached signature, or raise BadSignature. once, several: see signed_once()."""
    found = _verify(path.name, ["--verify", str(signature), str(path)], keys, several)
    if not once:
        _refuse(path.name, found[0].standing)


def _refuse(name: str, standing: Standing) -> None:
    if standing != "good":
        raise lapsed(name, standing)


def lapsed(name: str, standing: Standing) -> BadSignature:
    """The error for what a key has signed that no longer holds."""
    return BadSignature(
        f"{name}: its signature does not hold: the key that has made it {_WHY[standing]}",
        hint="is there a newer copy of the key, or of this? its publisher signs anew by `./inv renew-store`",
    )


@contextmanager
def _reading() -> Iterator[list[str]]:
    """gpg with an empty home, and nothing of the user's own settings and keys."""
    with tempfile.TemporaryDirectory(prefix=files.own_prefix()) as home:
        yield ["gpg", "--homedir", home, "--no-options", "--no-autostart", *_QUIET]


def _bounded() -> list[str]:
    return ["prlimit", f"--as={_MEMORY}", f"--fsize={_LARGEST}", f"--cpu={_SECONDS}", "--core=0", "--"]


def _verify(name: str, words: Sequence[str], keys: Path, several: bool) -> tuple[Signature, ...]:
    """Raise BadSignature unless there is one signature, or several if they may be, and each is of one of the keys."""
    with _reading() as gpg, tempfile.NamedTemporaryFile(prefix=files.own_prefix()) as status:
        # A status of its own: gpg's exit code is 0 for what a revoked key has signed, and names in keys may look
        # like a status among the rest of what it says. The path is absolute, since gpg looks for others in its home.
        ring = ["--no-default-keyring", "--keyring", str(keys.resolve()), "--trust-model", "always", "--lock-never"]
        options = [*ring, "--no-auto-check-trustdb", "--no-auto-key-retrieve", "--status-file", status.name]
        answer = run.run([*_bounded(), *gpg, *options, *words], name="gpg-verify", check=False)
        said = [line.split()[1:] for line in Path(status.name).read_text("utf-8", "replace").splitlines()]
    names = [row[0] for row in said if row]
    valid = [row for row in said if row and row[0] == "VALIDSIG"]
    standings = [_STANDINGS[name] for name in names if name in _STANDINGS]
    count, problem = (len(valid) if several else 1), ""
    if "EXPSIG" in names:
        problem = "it has expired by itself"
    elif answer.returncode or not count or not count == len(valid) == len(standings) == names.count("NEWSIG"):
        problem = "it is not signed once, by this key, as it is now"
    elif any(row[8] not in _STRONG for row in valid):
        problem = "its digest is a weak one, such as MD5 or SHA-1"
    if problem:
        raise BadSignature(f"{name}: its signature does not hold: {problem}", details=answer.output, log=answer.log)
    # Of each signature its standing comes first, then whose it is (fields 1 and 10).
    return tuple(Signature(row[10], row[1] == row[10], how) for row, how in zip(valid, standings, strict=True))
