"""Whoever serves a store puts keys into its key.asc which have the publisher's key for a subkey: anybody can make one.

gpg gives such a key, too, where it is asked for the publisher's fingerprint.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from foundry import gpg, openpgp
from foundry.gpg import BadSignature
from tests.unit.publish.adopted_keys import adopted, armored
from tests.unit.publish.changed_stores import renew
from tests.unit.publish.gpg_home import Home
from tests.unit.publish.publishing import NAME
from tests.unit.publish.replacing import Store

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents")]


def plant(store: Store, key: str) -> None:
    """Add to the store's keys the thief's, with one of the publisher's for a subkey."""
    there = store.by_old.store / "key.asc"
    theirs = armored(store.home, adopted(store.home, store.thief, key))
    there.write_text(there.read_text(encoding="utf-8") + theirs, encoding="utf-8")


def test_a_fingerprint_stands_for_one_key(home: Home, tmp_path: Path) -> None:
    """The publisher's own gpg may have it as well, by whatever way it came there."""
    mine, thief = home.key(), home.key("thief <thief@example.org>")
    given = home.export(mine, tmp_path / "given.gpg").read_bytes()
    planted = adopted(home, thief, mine)
    ring = gpg.merged(tmp_path / "given.gpg", [planted], tmp_path, every=True)
    assert gpg.primaries(ring) == {mine, thief}
    assert home.gpg("--with-subkey-fingerprint", "--show-keys", str(ring)).count(mine) == 2
    taken, texts = gpg.taken(ring, [mine], tmp_path)
    assert taken.read_bytes() == given and list(texts) == [mine]
    assert texts[mine] == home.gpg("--armor", "--export", mine)
    home.gpg("--import", str(ring))
    key = gpg.own(mine)
    assert key.fingerprint == mine
    assert key.public(tmp_path / "public.gpg").read_bytes() == given
    assert key.armored() == texts[mine]


def test_a_stranger_signs_what_apt_reads(store: Store) -> None:
    """verify-release said that it was signed."""
    renew(store.by_old)
    plant(store, store.old)
    release = store.by_old.store / f"apt/dists/{NAME}-candidate/InRelease"
    text = gpg.opened(release, store.home.export(store.old, store.folder / "old.gpg"), store.folder)
    release.unlink()
    store.home.clearsign(text, release, f"{store.thief}!")
    with pytest.raises(BadSignature):
        store.reader("r", store.old).check()


def test_a_stranger_is_no_key_of_apts(store: Store) -> None:
    """While a key is replaced, what machines are given for apt has the old key, and had whatever adopted that."""
    renew(store.by_old)
    plant(store, store.old)
    store.replace()
    plant(store, store.old)
    renew(store.by_new)
    text = (store.by_old.store / f"apt/{NAME}-candidate.sources").read_text(encoding="utf-8")
    lines = ["" if line == " ." else line[1:] for line in text.partition("Signed-By:\n")[2].splitlines()]
    blocks = re.findall("-----BEGIN.*?-----END[^\n]*\n", "\n".join(lines) + "\n", re.DOTALL)
    found = set()
    for block in blocks:
        (store.folder / "block").write_text(block, encoding="utf-8")
        found |= gpg.primaries(store.folder / "block")
    assert found == {store.old, store.new}


@pytest.mark.parametrize("data", [b"\x99", b"\x99\x00\x05abc", b"\xc6\xe1a", b"\x9bx", b"plain", b"\xb4\x01a"])
def test_what_gpg_does_not_write_is_no_key(data: bytes) -> None:
    with pytest.raises(ValueError, match="it "):
        openpgp.blocks(data)
