"""A publisher's key lives on: subkeys that are made, expire and are revoked, under one primary key kept elsewhere."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from foundry import gpg, run
from foundry.gpg import BadSignature
from foundry.publish import flow, ledger
from foundry.publish.local import LocalStore
from foundry.publish.memory import Stale
from tests.unit.publish.changed_stores import after_each_change, put, renew
from tests.unit.publish.gpg_home import Home, Short
from tests.unit.publish.key_readers import Reader, key_of
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def publisher(home: Home, tmp_path: Path) -> Project:
    """One whose primary key signs subkeys only, with version 1 published by the first of them."""
    key = home.key(use="cert")
    home.subkey(key)
    found = Project.at(tmp_path / "publisher", key=key)
    found.publish("1")
    return found


@pytest.fixture
def reader(publisher: Project, home: Home, tmp_path: Path) -> Reader:
    return Reader(publisher, home, tmp_path / "reader")


def test_a_subkey_in_place_of_one_that_was_revoked(
    publisher: Project, reader: Reader, home: Home, said: list[str]
) -> None:
    reader.check()
    home.subkey(key_of(publisher))
    home.revoke_subkey(key_of(publisher), 1)
    publisher.publish("2")
    assert reader.check().startswith(f"version  {NAME} 2, ")
    # What the old one has signed is vouched for by the new one.
    assert reader.check("1").startswith(f"version  {NAME} 1, ")
    # By somebody who is asked, once, whether it is all his.
    renew(publisher)
    assert len([line for line in said if line.startswith("entry 1 of the log is signed by")]) == 1


def test_a_key_that_was_served_once_with_a_subkey_made_useless(
    publisher: Project, reader: Reader, home: Home, tmp_path: Path
) -> None:
    """Who had remembered that refused the real store for good: gpg keeps the first of two copies of a signature."""
    key = publisher.store / "key.asc"
    home.subkey(key_of(publisher))
    real = home.export(key_of(publisher), tmp_path / "real").read_bytes()
    # RFC 4880, sections 5.2.3.26 and 5.2.1: the subkey's own signature, of type 0x19, which nobody has signed.
    head, _, rest = real.rpartition(b"\x20\x04\x19")
    key.write_bytes(head + b"\x64\x04\x19" + rest)
    reader.check()
    renew(publisher)
    reader.check()


def test_whoever_has_stolen_a_subkey_that_was_revoked(
    publisher: Project, reader: Reader, home: Home, short: Short, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief = home.twin(short())
    old_key = (publisher.store / "key.asc").read_bytes()
    home.subkey(key_of(publisher))
    home.revoke_subkey(key_of(publisher), 1)
    renew(publisher)
    reader.check()
    good = Path(shutil.copytree(publisher.store, tmp_path / "good"))
    stolen = publisher.copy(tmp_path / "stolen")
    stolen.workspace.seen.unlink()
    # It does not know that its key was revoked.
    (stolen.store / "key.asc").unlink()
    (stolen.store / ledger.INDEX).unlink()
    with monkeypatch.context() as patch:
        patch.setenv("GNUPGHOME", str(thief.folder))
        stolen.publish("3")
    thief.end()
    for key in (old_key, None, (good / "key.asc").read_bytes()):
        put(stolen.store, publisher)
        (publisher.store / "key.asc").unlink()
        if key:
            (publisher.store / "key.asc").write_bytes(key)
        with pytest.raises(BadSignature, match=r"index\.asc: .* was revoked"):
            reader.check()
    # The index of before, and an entry more in the log.
    put(good, publisher)
    shutil.copyfile(stolen.store / ledger.path_of(2), publisher.store / ledger.path_of(2))
    with pytest.raises(BadSignature, match=r"00000002\.json\.asc: .* was revoked"):
        reader.check()
    with pytest.raises(BadSignature, match=r"00000002\.json\.asc: .* was revoked"):
        publisher.publish("4")


def test_a_publisher_that_does_not_know_that_its_key_was_revoked(
    publisher: Project, home: Home, short: Short, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would write, readers would refuse."""
    late = home.twin(short())
    home.subkey(key_of(publisher))
    home.revoke_subkey(key_of(publisher), 1)
    renew(publisher)
    before = {p: p.read_bytes() for p in publisher.store.rglob("*") if p.is_file()}
    monkeypatch.setenv("GNUPGHOME", str(late.folder))
    with pytest.raises(BadSignature, match="was revoked"):
        flow.promote(publisher.settings, publisher.workspace, "1", channel="stable", to=None)
    late.end()
    assert {p: p.read_bytes() for p in publisher.store.rglob("*") if p.is_file()} == before


def expire(home: Home, key: str) -> None:
    """Let the first subkey expire, and wait until it has."""
    subkey = home.fingerprints(key)[1]
    home.gpg("--quick-set-expire", key, "seconds=1", subkey)
    while "sub:e:" not in home.gpg("--with-colons", "--list-keys", key):
        pass


def test_a_subkey_in_place_of_one_that_has_expired(publisher: Project, reader: Reader, home: Home) -> None:
    reader.check()
    expire(home, key_of(publisher))
    home.subkey(key_of(publisher))
    renew(publisher)
    publisher.publish("2")
    assert reader.check().startswith(f"version  {NAME} 2, ")
    assert reader.check("1").startswith(f"version  {NAME} 1, ")


def test_a_publisher_who_has_not_seen_what_an_expired_subkey_has_signed(publisher: Project, home: Home) -> None:
    """It may be of somebody who has got hold of that."""
    expire(home, key_of(publisher))
    home.subkey(key_of(publisher))
    publisher.workspace.seen.unlink()
    with pytest.raises(BadSignature, match="has expired") as caught:
        renew(publisher)
    name = hashlib.sha256((publisher.store / ledger.path_of(1)).read_bytes()).hexdigest()[:16]
    assert f"--accept {name}" in (caught.value.hint or "")
    renew(publisher, accept=name)
    publisher.publish("2")


def test_a_key_whose_expiry_was_moved_remembers(publisher: Project, reader: Reader, home: Home, tmp_path: Path) -> None:
    old = Path(shutil.copytree(publisher.store, tmp_path / "old"))
    publisher.publish("2")
    reader.check()
    home.gpg("--quick-set-expire", key_of(publisher), "1y")
    before = reader.given.read_bytes()
    assert home.export(key_of(publisher), reader.given).read_bytes() != before
    put(old, publisher)
    with pytest.raises(Stale, match="has served 2 entries before, and serves 1 now"):
        reader.check()


def test_a_later_expiry_reaches_readers_by_the_store(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = home.key(until="1y", at="20240101T000000")
    early = home.export(key, tmp_path / "early.gpg")
    home.gpg("--quick-set-expire", key, "1y")
    publisher = Project.at(tmp_path / "publisher", key=key)
    publisher.publish("1")
    reader = Reader(publisher, home, tmp_path / "reader")
    shutil.copyfile(early, reader.given)
    assert reader.check()
    # Remembered, should the store withhold it.
    (publisher.store / "key.asc").unlink()
    assert reader.check()


def test_another_key_in_the_store_is_not_believed(
    publisher: Project, reader: Reader, home: Home, tmp_path: Path
) -> None:
    other = home.key("Somebody else <else@example.org>")
    theirs = Project.at(tmp_path / "theirs", key=other)
    theirs.publish("1")
    put(theirs.store, publisher)
    with pytest.raises(BadSignature, match=r"index\.asc: its signature does not hold"):
        reader.check()


@pytest.mark.parametrize("data", [b"", b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n", bytes(2 << 20)])
def test_a_key_file_that_makes_no_sense_changes_nothing(publisher: Project, reader: Reader, data: bytes) -> None:
    (publisher.store / "key.asc").write_bytes(data)
    reader.check()
    renew(publisher)
    assert (publisher.store / "key.asc").read_bytes().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")


def test_what_another_publisher_has_brought_of_the_key_stays(
    publisher: Project, home: Home, short: Short, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = home.twin(short())
    home.subkey(key_of(publisher))
    renew(publisher)
    monkeypatch.setenv("GNUPGHOME", str(late.folder))
    renew(publisher)
    late.end()
    assert subkeys(publisher.store / "key.asc") == 2


def subkeys(path: Path) -> int:
    with gpg._reading() as words:
        rows = run.run([*words, "--with-colons", "--show-keys", path], name="x").output.splitlines()
    return sum(row.startswith("sub:") for row in rows)


@pytest.mark.parametrize("way", ["publish", "renew"])
def test_a_new_subkey_is_there_before_anything_that_it_has_signed(
    publisher: Project, reader: Reader, home: Home, way: str
) -> None:
    """A publisher may be killed anywhere, and readers come at any time."""
    home.subkey(key_of(publisher))
    home.revoke_subkey(key_of(publisher), 1)

    def look(path: str) -> None:
        # What was revoked is refused from then on, until the index is signed anew.
        if path != "key.asc":
            reader.check()

    with after_each_change(look) as changed:
        if way == "publish":
            publisher.publish("2")
        else:
            renew(publisher)
    assert changed == ["key.asc", "index.asc", *(["log/00000002.json.asc", "index.asc"] if way == "publish" else [])]


def test_a_reader_who_comes_while_a_subkey_is_replaced(publisher: Project, reader: Reader, home: Home) -> None:
    """He reads the index first, and the key after it: so what has signed the one is in the other."""
    home.subkey(key_of(publisher))
    real = LocalStore.read
    renewed: list[str] = []

    def read(self: LocalStore, path: str) -> bytes:
        data = real(self, path)
        if not renewed:
            renewed.append(path)
            renew(publisher)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "read", read)
        reader.check()
    assert renewed == ["index.asc"]
