"""Replacing the primary key of a store, by its publisher: in which order, what is refused, and what others see of it.

What readers make of it, and who has stolen the old key, is in test_replaced_keys.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry.errors import ConfigError
from foundry.gpg import BadSignature
from foundry.publish import ledger, replacement
from foundry.publish.ledger import Conflict
from foundry.publish.local import LocalStore
from foundry.publish.session import session
from tests.unit.publish.changed_stores import after_each_change, days_later, elsewhere, renew
from tests.unit.publish.gpg_home import Home
from tests.unit.publish.publishing import NAME, Project
from tests.unit.publish.replacing import THIRD, Store, promote, replace

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


def test_what_is_told_and_what_the_store_has(store: Store) -> None:
    lines = store.replace(days=10)
    assert lines[0] == f"key      {store.old} -> {store.new}"
    assert "may sign what is new until " in lines[1]
    assert store.log == [f"0000000{n}.json.asc" for n in (1, 2, 3)]
    text = (store.by_old.store / "log" / store.log[1]).read_text(encoding="utf-8")
    assert f'"key":"{store.new}","key_days":10' in text
    # Both, the newest first.
    key = store.by_old.store / "key.asc"
    shown = store.home.gpg("--with-colons", "--show-keys", str(key)).splitlines()
    assert [row.split(":")[9] for row in shown if row.startswith("fpr")] == [store.new, store.old]
    # Once is enough.
    assert store.replace(days=10)[0] == lines[0]
    assert len(store.log) == 3


def test_old_entries_say_nothing_of_keys(store: Store) -> None:
    """Programs of before know no such facts, and refuse an entry that has one."""
    store.replace()
    said = [(store.by_old.store / "log" / name).read_text(encoding="utf-8") for name in store.log]
    assert ["key_days" in text for text in said] == [False, True, False]


def test_whoever_publishes_by_the_old_key_is_told_and_after_the_while_refused(store: Store, said: list[str]) -> None:
    store.replace()
    promote(store.by_old)
    assert [line for line in said if f"{store.old} was replaced in this store, and may sign until" in line]
    before = store.everything()
    with days_later(91):
        for act in (lambda: renew(store.by_old), lambda: store.by_old.publish("2"), store.replace):
            with pytest.raises(ConfigError, match="was replaced in this store, and signs nothing since") as caught:
                act()
        assert (caught.value.hint or "").endswith(f"to {store.new}")
        assert store.everything() == before
        store.by_new.publish("2")


# what is refused


def refused(store: Store, why: str, new: str = "", project: Project | None = None, **options: int) -> None:
    before = store.everything()
    with pytest.raises((ConfigError, BadSignature), match=why):
        replace(project or store.by_old, new or store.new, **options)
    assert store.everything() == before


def test_a_key_that_cannot_replace_another(store: Store) -> None:
    home = store.home
    refused(store, "cannot replace", new=store.old)
    refused(store, "--replace-key: gpg has no secret key of nobody", new="nobody")
    weak = "Weak <weak@example.org>"
    home.gpg("--quick-gen-key", weak, "rsa1024", "sign", "never")
    refused(store, "is too weak: the primary key has 1024 bits, of 2048 at least", new=weak)
    home.gpg("--quick-add-key", store.thief, "rsa1024", "sign", "never")
    refused(store, "is too weak: a subkey has 1024 bits", new=store.thief)
    gone = home.key("Gone <gone@example.org>", until="1d", at="20240101T000000")
    refused(store, "gpg has no secret key", new=gone)
    away = home.key(THIRD)
    for row in home.gpg("--with-colons", "--with-keygrip", "--list-keys", away).splitlines():
        if row.startswith("grp"):
            (home.folder / "private-keys-v1.d" / f"{row.split(':')[9]}.key").unlink()
    refused(store, "gpg has no secret key", new=away)
    home.revoke(store.new)
    refused(store, "gpg has no secret key")


@pytest.mark.parametrize("days", [0, -1, 366])
def test_a_while_that_is_none(store: Store, days: int) -> None:
    refused(store, f"--days: {days} is none of 1 to 365", days=days)


@pytest.mark.parametrize("text", ["-1", "1.5", "a week", "٣"])
def test_a_while_that_is_no_number(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--days: .* is none of 1 to 365"):
        replacement.days_of(text)


def test_a_while_that_is_not_said() -> None:
    assert replacement.days_of("") == 90
    assert replacement.days_of("7") == 7


def test_a_key_that_cannot_be_replaced_by_another(store: Store, home: Home) -> None:
    empty = Project.at(store.folder / "empty", key=store.old)
    refused(store, "there is nothing in", project=empty)
    store.replace()
    third = home.key(THIRD)
    refused(store, f"cannot replace {store.old}: the keys of this store are {store.old}, {store.new}", new=third)
    refused(store, f"{store.old} cannot replace {store.new}", new=store.old, project=store.by_new)


def test_a_primary_key_that_only_certifies(home: Home, tmp_path: Path) -> None:
    key = home.key(use="cert")
    home.subkey(key)
    new = home.key(THIRD)
    project = Project.at(tmp_path / "publisher", key=key)
    project.publish("1")
    with pytest.raises(ConfigError, match=f"the primary key {key} itself has to sign, not a subkey of it") as caught:
        replace(project, new)
    assert f"gpg --edit-key {key} change-usage" in (caught.value.hint or "")
    assert len(list((project.store / "log").iterdir())) == 1
    home.gpg("--command-fd", "0", "--edit-key", key, text="change-usage\nS\nQ\nsave\n")
    assert replace(project, new)[0] == f"key      {key} -> {new}"


def test_a_new_key_in_a_file(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "new.asc"
    secret.write_text(store.home.gpg("--armor", "--export-secret-keys", store.new))
    store.home.gpg("--delete-secret-keys", store.new)
    assert store.replace(new=str(secret))[0] == f"key      {store.old} -> {store.new}"
    (tmp_path / "none").write_text("x")
    with pytest.raises(ConfigError, match=r"--replace-key: .* holds no secret key"):
        store.replace(store.by_old, str(tmp_path / "none"))


# at the wrong moment


def test_readers_of_the_old_key_can_read_at_any_moment(store: Store) -> None:
    reader = store.reader("r", store.old)
    with after_each_change(lambda path: reader.check()) as changed:
        store.replace(days=1)
    assert changed == ["key.asc", "log/00000002.json.asc", "log/00000003.json.asc", "index.asc"]


def test_a_reader_who_comes_while_a_key_is_replaced(store: Store) -> None:
    """He has read what was there of keys, and then finds an entry by another one."""
    reader = store.reader("r", store.old)
    real, done = LocalStore.read, []

    def read(self: LocalStore, path: str) -> bytes:
        if path == ledger.path_of(2) and not done:
            done.append(path)
            store.replace()
        return real(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "read", read)
        reader.check()
    assert done and len(store.log) == 3


@pytest.mark.parametrize("number", [2, 3])
def test_a_publisher_who_is_killed_after_an_entry(store: Store, number: int) -> None:
    real = LocalStore.create

    def create(self: LocalStore, path: str, data: bytes) -> None:
        real(self, path, data)
        if path == ledger.path_of(number):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "create", create)
        with pytest.raises(KeyboardInterrupt):
            store.replace()
    assert len(store.log) == number
    assert store.reader("r", store.old).check()
    if number == 2:
        # All goes on by the old key, however long that takes.
        with pytest.raises(BadSignature, match="has signed nothing in it yet") as caught:
            store.reader("n", store.new).check()
        assert "renew-store --replace-key` again" in (caught.value.hint or "")
        with days_later(200):
            store.by_old.publish("2")
            assert store.reader("later", store.old).check()
            store.replace()
            store.reader("n2", store.new).check("2")
        return
    store.replace()
    assert len(store.log) == 3
    assert store.reader("n", store.new).check()


def test_of_two_who_replace_the_key_one_wins(store: Store, home: Home) -> None:
    third = home.key(THIRD)
    other = elsewhere(store.by_old, store.folder / "other")
    with session(store.by_old.settings, store.by_old.workspace, None) as slow:
        replace(Project(other.workspace, store.by_old.settings, store.by_old.store), third)
        with pytest.raises(Conflict, match="somebody else has changed"):
            slow.append("replace-key", "", "", key=store.new, key_days=90)
    with pytest.raises(ConfigError, match=f"the keys of this store are {store.old}, {third}"):
        store.replace()
    assert store.reader("r", store.old).check()


def test_somebody_else_publishes_while_the_key_is_replaced(store: Store) -> None:
    """He comes first with his entry, and shows what has happened since by the key that he has."""
    with session(store.by_old.settings, store.by_old.workspace, None) as slow:
        slow.append("promote", NAME, "1", channel="beta")
        other = elsewhere(store.by_old, store.folder / "other")
        replace(Project(other.workspace, store.by_old.settings, store.by_old.store), store.new)
        slow.show()
        assert slow.state.sequence == len(store.log) == 4
    for key in (store.old, store.new):
        assert store.reader(key, key).check("beta")


def test_what_was_revoked_reaches_the_store_by_the_new_key(store: Store) -> None:
    store.replace()
    store.home.revoke(store.old)
    renew(store.by_new)
    rows = store.home.gpg("--with-colons", "--show-keys", str(store.by_old.store / "key.asc")).splitlines()
    assert [row.split(":")[1] for row in rows if row.startswith("pub")][1] == "r"
