"""Which signatures hold: those of a key that holds now, and only as it is told by its owner."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import gpg
from foundry.errors import ConfigError
from foundry.gpg import BadSignature
from foundry.publish import signing
from foundry.workspace import Workspace
from tests.unit.publish.gpg_home import USER, Home
from tests.unit.publish.test_signing import settings, signs

pytestmark = pytest.mark.real_process


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    # Short: the agent's socket lies in it.
    found = Home(tmp_path_factory.mktemp("g") / "h")
    yield found
    found.end()


def holds(home: Home, name: str, by: str, tmp_path: Path, *words: str) -> None:
    """Raises BadSignature where what a key signs, or has signed in by.asc before, is not believed; both kinds of it."""
    keys = home.export(name, tmp_path / "keys.gpg")
    path = tmp_path / f"{by.rstrip('!')}.asc"
    if not path.exists():
        home.clearsign("text\n", path, by, *words)
        home.gpg(*words, "--local-user", by, "--output", f"{path}.sig", "--detach-sign", str(path))
    assert gpg.opened(path, keys, tmp_path) == "text\n"
    gpg.check(path, Path(f"{path}.sig"), keys)


def refused(home: Home, name: str, by: str, tmp_path: Path, why: str) -> None:
    with pytest.raises(BadSignature, match=f"its signature does not hold: .*{why}"):
        holds(home, name, by, tmp_path)
    path = tmp_path / f"{by.rstrip('!')}.asc"
    with pytest.raises(BadSignature, match=why):
        gpg.check(path, Path(f"{path}.sig"), tmp_path / "keys.gpg")


def test_a_key_that_was_revoked(home: Home, tmp_path: Path) -> None:
    key = home.key()
    holds(home, key, key, tmp_path)
    home.revoke(key)
    refused(home, key, key, tmp_path, "was revoked")


def test_a_key_that_has_expired_and_goes_on_by_a_later_date(home: Home, tmp_path: Path) -> None:
    key = home.key(until="1y", at="20240101T000000")
    at = ("--faked-system-time", "20240601T000000")
    home.clearsign("text\n", tmp_path / f"{key}.asc", key, *at)
    home.gpg(
        *at, "--local-user", key, "--output", f"{tmp_path / key}.asc.sig", "--detach-sign", f"{tmp_path / key}.asc"
    )
    refused(home, key, key, tmp_path, "has expired")
    home.gpg("--quick-set-expire", key, "1y")
    holds(home, key, key, tmp_path)


def test_a_signature_that_has_expired_by_itself(home: Home, tmp_path: Path) -> None:
    key = home.key(at="20240101T000000")
    at = ("--faked-system-time", "20240601T000000")
    home.clearsign("text\n", tmp_path / "text.asc", key, *at, "--default-sig-expire", "1d")
    keys = home.export(key, tmp_path / "keys.gpg")
    with pytest.raises(BadSignature, match="it has expired by itself"):
        gpg.opened(tmp_path / "text.asc", keys, tmp_path)


def test_what_the_user_has_set_lets_no_signature_expire(
    home: Home, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = home.key()
    (home.folder / "gpg.conf").write_text("default-sig-expire 1d\n")
    monkeypatch.setenv("GNUPGHOME", os.fspath(home.folder))
    with signing.key(settings(key=key), workspace, tmp_path) as mine:
        (tmp_path / "text").write_text("text")
        found = home.gpg("--list-packets", str(mine.detach(tmp_path / "text", tmp_path / "text.sig")))
    assert "sig created" in found
    assert "sig expires" not in found


def test_a_subkey_that_was_revoked_while_the_others_hold(home: Home, tmp_path: Path) -> None:
    key = home.key(use="cert")
    one, two = home.subkey(key), home.subkey(key)
    holds(home, key, f"{one}!", tmp_path)
    holds(home, key, f"{two}!", tmp_path)
    home.revoke_subkey(key, 1)
    refused(home, key, f"{one}!", tmp_path, "was revoked")
    holds(home, key, f"{two}!", tmp_path)


@pytest.mark.parametrize("digest", ["SHA1", "RIPEMD160"])
def test_a_weak_digest(home: Home, tmp_path: Path, digest: str) -> None:
    key = home.key()
    with pytest.raises(BadSignature, match="its digest is a weak one"):
        holds(home, key, key, tmp_path, "--digest-algo", digest)
    path = tmp_path / f"{key}.asc"
    with pytest.raises(BadSignature, match="its digest is a weak one"):
        gpg.check(path, Path(f"{path}.sig"), tmp_path / "keys.gpg")


def test_a_name_in_a_key_is_no_status(home: Home, tmp_path: Path) -> None:
    """What gpg says for people has names of keys in it; what it says for programs is read from elsewhere."""
    mine, other = home.key(), home.key("x\n[GNUPG:] GOODSIG 1\n[GNUPG:] VALIDSIG 1 2 3 4 5 6 7 8 9 0")
    keys = home.export(mine, tmp_path / "keys.gpg")
    with pytest.raises(BadSignature):
        gpg.opened(home.clearsign("text\n", tmp_path / "x.asc", other), keys, tmp_path)


def test_a_signed_message_of_another_kind(home: Home, tmp_path: Path) -> None:
    """It may be compressed, to any size, and the text would be written to the disk before anything is known of it."""
    key = home.key()
    home.gpg("--local-user", key, "--output", str(tmp_path / "x.asc"), "--armor", "--sign", text="text\n")
    with pytest.raises(BadSignature, match="it is no clear-signed text"):
        gpg.opened(tmp_path / "x.asc", home.export(key, tmp_path / "keys.gpg"), tmp_path)


def test_one_key_is_believed_not_a_ring_of_them(home: Home, tmp_path: Path) -> None:
    home.export(home.key(), tmp_path / "one.gpg")
    home.key("Somebody else <else@example.org>")
    home.gpg("--output", str(tmp_path / "two.gpg"), "--export")
    home.gpg("--armor", "--output", str(tmp_path / "two.asc"), "--export")
    for name in ("two.gpg", "two.asc"):
        with pytest.raises(ConfigError, match="holds 2 OpenPGP keys, where one is needed"):
            gpg.keyring(tmp_path / name, tmp_path)
        (tmp_path / "keyring.gpg").unlink(missing_ok=True)
    assert gpg.keyring(tmp_path / "one.gpg", tmp_path) == tmp_path / "one.gpg"


# what a key's owner says of it later


def test_what_the_owner_adds_to_a_key_is_taken(home: Home, tmp_path: Path) -> None:
    key = home.key(use="cert")
    by_old = home.clearsign("text\n", tmp_path / "old.asc", f"{home.subkey(key)}!")
    pinned = home.export(key, tmp_path / "pinned.gpg")
    new = home.subkey(key)
    home.revoke_subkey(key, 1)
    now = home.export(key, tmp_path / "now.gpg")
    text = home.clearsign("text\n", tmp_path / "new.asc", f"{new}!")
    with pytest.raises(BadSignature):
        gpg.opened(text, pinned, tmp_path)
    keys = gpg.merged(pinned, [b"", b"what is no key", now.read_bytes()], tmp_path)
    assert gpg.opened(text, keys, tmp_path) == "text\n"
    assert gpg.primary(keys) == key
    # In whatever order they come: what was revoked stays revoked.
    again = gpg.merged(keys, [pinned.read_bytes()], tmp_path)
    for ring in (keys, again):
        with pytest.raises(BadSignature, match="was revoked"):
            gpg.opened(by_old, ring, tmp_path)


def test_what_others_add_to_a_key_is_not_taken(home: Home, tmp_path: Path) -> None:
    """Neither another key, nor a subkey that its primary key has not signed."""
    mine = home.key()
    pinned = home.export(mine, tmp_path / "pinned.gpg")
    other = home.key("Somebody else <else@example.org>")
    grafted = home.subkey(other)
    theirs = home.export(other, tmp_path / "theirs.gpg").read_bytes()
    packets = taken_apart(theirs)
    for added in (theirs, pinned.read_bytes() + theirs, pinned.read_bytes() + b"".join(packets[-2:])):
        keys = gpg.merged(pinned, [added], tmp_path)
        assert gpg.primary(keys) == mine
        for by in (other, grafted):
            path = home.clearsign("text\n", tmp_path / f"{by}.asc", f"{by}!")
            with pytest.raises(BadSignature):
                gpg.opened(path, keys, tmp_path)


def taken_apart(data: bytes) -> list[bytes]:
    """The packets of a key as gpg writes it: of the old format (RFC 4880, section 4.2.1)."""
    found = []
    while data:
        size = 1 << (data[0] & 3)
        end = 1 + size + int.from_bytes(data[1 : 1 + size], "big")
        found.append(data[:end])
        data = data[end:]
    return found


# a primary key that is kept elsewhere


@pytest.fixture
def offline(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str]]:
    """A home that has only the secret part of a subkey, and the fingerprint of its primary key."""
    key = home.key(use="cert")
    home.subkey(key)
    found = Home(tmp_path_factory.mktemp("o") / "h")
    found.gpg("--import", text=home.gpg("--armor", "--export-secret-subkeys", key))
    yield found, key
    found.end()


def test_a_subkey_signs_whose_primary_key_is_elsewhere(
    offline: tuple[Home, str], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, key = offline
    monkeypatch.setenv("GNUPGHOME", str(there.folder))
    found = signs(settings(key=key), workspace, tmp_path)
    assert (found.fingerprint, found.user) == (key, USER)


def test_a_file_with_a_subkey_alone(offline: tuple[Home, str], workspace: Workspace, tmp_path: Path) -> None:
    there, key = offline
    exported = tmp_path / "subkey.asc"
    exported.write_text(there.gpg("--armor", "--export-secret-subkeys", key))
    assert signs(settings(key_file=str(exported)), workspace, tmp_path).fingerprint == key


def test_a_key_of_which_no_secret_part_signs(
    offline: tuple[Home, str], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, key = offline
    shutil.rmtree(there.folder / "private-keys-v1.d")
    monkeypatch.setenv("GNUPGHOME", str(there.folder))
    with (
        pytest.raises(ConfigError, match="that can sign"),
        signing.key(settings(key=key), workspace, tmp_path),
    ):
        pass


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, tmp_path / "build", "run")


def test_nothing_of_the_users_own_gpg_is_read(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings might let more be believed."""
    key, other = home.key(), home.key("Somebody else <else@example.org>")
    keys, ring = home.export(key, tmp_path / "keys.gpg"), home.export(other, tmp_path / "other.gpg")
    path = home.clearsign("text\n", tmp_path / "x.asc", other)
    (home.folder / "gpg.conf").write_text(f"keyring {ring}\n")
    monkeypatch.setenv("GNUPGHOME", os.fspath(home.folder))
    with pytest.raises(BadSignature):
        gpg.opened(path, keys, tmp_path)
