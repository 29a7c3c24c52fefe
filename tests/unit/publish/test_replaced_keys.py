"""A store whose primary key was replaced: nobody who follows it loses it, and who has the old key gets nothing by it.

What the publisher does for that is in test_replacing.py, and what a thief can do in test_stolen_keys.py.
"""

from __future__ import annotations

import shutil

import pytest

from foundry import files
from foundry.gpg import BadSignature
from foundry.publish import releases
from foundry.publish.ledger import Broken
from foundry.publish.memory import Fork, Stale
from tests.unit.publish.changed_stores import away, days_later, head, put, renew
from tests.unit.publish.publishing import NAME, Project
from tests.unit.publish.replacing import THIRD, Store, replace

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]

ONE, TWO = f"version  {NAME} 1, ", f"version  {NAME} 2, "


def replaced(said: list[str]) -> int:
    """How often somebody was told that a key was replaced."""
    return len([line for line in said if "was replaced, by" in line])


# who has the old key


def test_a_reader_of_the_old_key_follows_and_is_told_once(store: Store, said: list[str]) -> None:
    reader = store.reader("r", store.old)
    reader.check()
    store.replace()
    store.by_new.publish("2")
    assert reader.check().startswith(TWO)
    (line,) = [line for line in said if "was replaced, by" in line]
    assert f"its key {store.old} was replaced, by {store.new}: entry 2 of the log says so" in line
    assert f"import key.asc of the store, then `gpg --armor --export {store.new} > FILE`" in line
    assert reader.check("1").startswith(ONE)
    assert replaced(said) == 1


def test_a_reader_who_only_looks_follows_as_well(store: Store, said: list[str]) -> None:
    store.replace()
    given = store.home.export(store.old, store.folder / "given.gpg")
    seen = store.by_old.settings.publish.model_copy(update={"key": None, "public_key": given})
    settings = store.by_old.settings.model_copy(update={"publish": seen})
    assert any(" 1 " in line for line in releases.releases(settings, store.by_old.workspace, to=None, as_json=False))
    assert not [line for line in said if "not to be believed" in line]


@pytest.mark.parametrize("seen", [True, False])
def test_a_reader_of_the_old_key_after_the_while(store: Store, seen: bool) -> None:
    reader = store.reader("r", store.old)
    store.replace()
    if seen:
        reader.check()
    with days_later(100):
        store.by_new.publish("2")
        assert reader.check().startswith(TWO)
        assert reader.check("1").startswith(ONE)


def end(store: Store, how: str) -> None:
    """Let the old key expire, and wait until it has, or revoke it; and let the store say so."""
    if how == "revoked":
        store.home.revoke(store.old)
    else:
        store.home.gpg("--quick-set-expire", store.old, "seconds=1")
        while "pub:e:" not in store.home.gpg("--with-colons", "--list-keys", store.old):
            pass
    renew(store.by_new)


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_reader_of_an_old_key_that_does_not_hold_any_more(store: Store, how: str) -> None:
    """Who has seen the entry goes on; who has not cannot know that it was not made by whoever had stolen the key."""
    reader, late = store.reader("r", store.old), store.reader("late", store.old)
    late.check()
    store.replace()
    reader.check()
    end(store, how)
    store.by_new.publish("2")
    assert reader.check().startswith(TWO)
    (store.by_old.store / "key.asc").unlink()
    assert reader.check("1").startswith(ONE)
    renew(store.by_new)
    for who in (late, store.reader("first", store.old)):
        with pytest.raises(BadSignature) as caught:
            who.check()
        hint = caught.value.hint or ""
        assert f"was replaced, by {store.new}" in hint
        assert "get the new key from the publisher by the way the first one came" in hint
        # That somebody has looked at the log does not let a key be believed.
        with pytest.raises(BadSignature, match=f"it is by {store.new}, for which no key vouches"):
            who.check(accept=head(store.by_new))
        who.pin(store.home, store.new)
        assert who.check().startswith(TWO)


# who has the new key


@pytest.mark.parametrize("how", ["holds", "revoked", "expired"])
def test_a_reader_of_the_new_key_reads_all_of_it(store: Store, how: str) -> None:
    store.replace()
    store.by_new.publish("2")
    if how != "holds":
        end(store, how)
    reader = store.reader("r", store.new)
    assert reader.check().startswith(TWO)
    assert reader.check("1").startswith(ONE)


def test_a_reader_of_the_new_key_believes_the_old_one_for_the_while_and_not_longer(store: Store) -> None:
    store.replace()
    store.by_old.publish("2")
    assert store.reader("r", store.new).check().startswith(TWO)
    with days_later(100):
        for key in (store.old, store.new):
            with pytest.raises(BadSignature, match="was replaced by another, and the while is over"):
                store.reader(key, key).check()
        # Its publisher looks at what has come by the old key, and says so by the new one.
        store.by_old.workspace.seen.unlink()
        with pytest.raises(BadSignature, match=r"00000004\.json\.asc: .* was replaced by another"):
            renew(store.by_new)
        renew(store.by_new, accept=head(store.by_new))
        store.by_new.publish("3")
        assert store.reader("later", store.new).check("2").startswith(TWO)


def test_two_replacements_in_a_row(store: Store, said: list[str]) -> None:
    third = store.home.key(THIRD)
    first = store.reader("r", store.old)
    first.check()
    store.replace()
    store.replace(store.by_new, third)
    store.signing(third).publish("2")
    for who in (first, *(store.reader(key, key) for key in (store.old, store.new, third))):
        assert who.check().startswith(TWO)
        assert who.check("1").startswith(ONE)
    # The last one: nobody has to go through those between.
    assert len([line for line in said if f"was replaced, by {third}" in line]) == 3
    with days_later(100):
        renew(store.signing(third))
        for key in (store.old, store.new, third):
            assert store.reader(f"later-{key}", key).check().startswith(TWO)


# rollbacks, and other stores


def test_a_rollback_to_before_the_replacement(store: Store) -> None:
    before = away(store.by_old, store.folder / "before")
    reader, fresh = store.reader("r", store.old), store.reader("n", store.new)
    store.replace()
    reader.check()
    fresh.check()
    put(before, store.by_old)
    with pytest.raises(Stale, match="has served 3 entries before, and serves 1 now"):
        reader.check()
    with pytest.raises(BadSignature, match="nothing that"):
        fresh.check()
    with pytest.raises(Stale, match="has served 3 entries before, and serves 1 now"):
        renew(store.by_old)


def test_what_was_seen_is_not_forgotten_with_the_old_key(store: Store) -> None:
    """By a reader that pins the new one, whether or not he had followed before."""
    followed, not_yet = store.reader("r", store.old), store.reader("n", store.old)
    store.by_old.publish("2")
    not_yet.check()
    store.replace()
    old = away(store.by_old, store.folder / "old")
    renewed = store.signing(store.new)
    renewed.publish("3")
    followed.check()
    for who in (followed, not_yet):
        who.pin(store.home, store.new)
    put(old, store.by_old)
    with pytest.raises(Stale, match="has served 5 entries before, and serves 4 now"):
        followed.check()
    # A fork from before what this one had seen, which the new key goes on with.
    store.by_old.workspace.seen.unlink()
    for name in store.log[1:]:
        (store.by_old.store / "log" / name).unlink()
    store.show(store.old)
    replace(store.by_old, store.new)
    store.by_new.publish("4")
    with pytest.raises(Fork, match="entry 2 of its log is another one than it was before"):
        not_yet.check()


def test_what_was_seen_with_the_new_key_is_known_of_the_old_one(store: Store) -> None:
    before = away(store.by_old, store.folder / "before")
    reader = store.reader("r", store.new)
    store.replace()
    reader.check()
    put(before, store.by_old)
    reader.pin(store.home, store.old)
    with pytest.raises(Stale, match="has served 3 entries before, and serves 1 now"):
        reader.check()


def test_another_store_of_the_old_key(store: Store) -> None:
    """One where the key was not replaced, and one where it was: what one says of a key is nothing to the other."""
    reader = store.reader("r", store.old)
    store.replace()
    reader.check()
    staging = Project.at(store.folder / "staging", key=store.old)
    for version in ("1", "2", "3"):
        staging.publish(version)
    real = away(store.by_old, store.folder / "real")
    put(staging.store, store.by_old)
    with pytest.raises(Fork, match="it was the store"):
        reader.check()
    store.add(store.new)
    shutil.copyfile(real / "key.asc", store.by_old.store / "key.asc")
    with pytest.raises(BadSignature, match=f"the log has not named {store.new}"):
        reader.check()
    put(staging.store, store.by_old)
    replace(staging, store.new)
    put(staging.store, store.by_old)
    with pytest.raises(Fork, match="it was the store"):
        reader.check()


def test_a_store_that_names_a_key_is_not_remembered_as_one_of_that_key(store: Store) -> None:
    """It could claim the id of another store, so that this one would seem to have been put back."""
    renew(store.by_old)
    reader = store.reader("r", store.thief)
    theirs = Project.at(store.folder / "theirs", key=store.thief)
    theirs.publish("1")
    real = away(store.by_old, store.folder / "real")
    put(theirs.store, store.by_old)
    store.bring_key(store.old)
    store.name_key(store.thief, store.old)
    for _ in range(5):
        store.add(store.thief)
    store.show(store.thief)
    reader.check()
    put(real, store.by_old)
    reader.pin(store.home, store.old)
    assert reader.check().startswith(ONE)


# a key that was lost


def test_a_key_that_was_lost_means_a_new_store(store: Store) -> None:
    """At the same address, if need be: who has the new key goes by that."""
    reader = store.reader("r", store.old)
    reader.check()
    with pytest.raises(BadSignature, match="nothing that"):
        renew(store.by_new, accept=head(store.by_new))
    shutil.rmtree(store.by_old.store)
    store.by_new.publish("2")
    for options in ({}, {"accept": head(store.by_new)}):
        with pytest.raises(BadSignature, match=f"nothing that {store.old} has signed names that key") as caught:
            reader.check(**options)
    assert "get the key of that by the way the first one came" in (caught.value.hint or "")
    reader.pin(store.home, store.new)
    assert reader.check().startswith(TWO)


# what is no replacement


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"key": "0" * 39}, "is no fingerprint of an OpenPGP key"),
        ({"key": "../../key"}, "is no fingerprint of an OpenPGP key"),
        ({"key": None}, "a key is named by replace-key"),
        ({"action": "renew"}, "a key is named by replace-key"),
        ({"action": "replace-store", "key": None}, "is nothing that this program knows"),
        ({"key_days": 0}, "is no number of days from 1 to 365"),
        ({"key_days": 366}, "is no number of days from 1 to 365"),
        ({"key_days": True}, "is no number of days from 1 to 365"),
        ({"key_days": None}, "is no number of days from 1 to 365"),
        ({"when": "soon"}, "is signed, but no entry"),
        ({"when": "9999-12-31T23:59:59+00:00"}, "is signed, but no entry"),
    ],
)
def test_an_entry_that_makes_no_sense(store: Store, facts: dict[str, object], why: str) -> None:
    store.name_key(store.old, store.new, **facts)
    with pytest.raises(Broken, match=why):
        store.reader("r", store.old).check()


def test_a_key_does_not_come_back(store: Store) -> None:
    store.replace()
    store.name_key(store.new, store.old)
    with pytest.raises(Broken, match=f"names {store.old}, which cannot come after {store.old}, {store.new}"):
        store.reader("r", store.new).check()


def test_a_log_does_not_begin_with_a_replacement(store: Store) -> None:
    """Which could come from the log of any other store of the key."""
    for name in store.log:
        (store.by_old.store / "log" / name).unlink()
    (store.by_old.store / "index.asc").unlink()
    store.by_old.workspace.seen.unlink()
    entry = {"sequence": 1, "previous": "", "action": "replace-key", "image": "", "version": "", "who": "x",
             "when": "2026-11-24T00:00:00+00:00", "key": store.thief, "key_days": 90}  # fmt: skip
    store.home.clearsign(files.canonical(entry), store.by_old.store / "log" / "00000001.json.asc", store.old)
    with pytest.raises(Broken, match="which cannot come after nothing"):
        renew(store.by_old)
