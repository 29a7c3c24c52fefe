"""Who has got hold of a store's primary key, before it was replaced or after: what he can do, and what he cannot."""

from __future__ import annotations

import pytest

from foundry.errors import ConfigError, FoundryError
from foundry.gpg import BadSignature
from foundry.publish.ledger import Broken
from foundry.publish.memory import Fork
from tests.unit.publish.changed_stores import away, days_later, head, put, renew
from tests.unit.publish.publishing import Project
from tests.unit.publish.replacing import Store

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


def test_a_thief_after_the_while(store: Store) -> None:
    reader = store.reader("r", store.old)
    store.replace()
    reader.check()
    with days_later(100):
        renew(store.by_new)
        reader.check()
        good = away(store.by_old, store.folder / "good")
        # What is new goes unseen if somebody else can date the index.
        store.show(store.old)
        for who in (reader, store.reader("n", store.new)):
            with pytest.raises(BadSignature, match=r"index\.asc: .* was replaced by another"):
                who.check()
        for index in (store.old, store.new):
            put(good, store.by_old)
            store.add(store.old)
            store.show(index, back=index == store.new)
            for who in (reader, store.reader(f"n-{index}", store.new)):
                with pytest.raises(BadSignature, match="was replaced by another, and the while is over"):
                    who.check()
        put(good, store.by_old)
        store.name_key(store.old, store.thief)
        with pytest.raises(BadSignature, match="only the store's present primary key itself"):
            reader.check()


def test_a_thief_during_the_while_cannot_replace_the_new_key(store: Store) -> None:
    store.replace()
    store.name_key(store.old, store.thief)
    store.add(store.thief)
    store.show(store.thief)
    store.bring_key(store.thief)
    for key in (store.old, store.new):
        with pytest.raises(BadSignature, match=f"only the store's present primary key itself, {store.new}, can name"):
            store.reader(key, key).check()


def test_an_entry_of_replacement_by_nobodys_key(store: Store) -> None:
    reader = store.reader("r", store.old)
    store.name_key(store.thief, store.thief)
    store.add(store.thief)
    store.bring_key(store.thief)
    for index in (store.old, store.thief):
        store.show(index, back=2 if index == store.old else 0)
        with pytest.raises(BadSignature, match=f"the log has not named {store.thief}"):
            reader.check()


def test_a_log_of_somebody_elses_that_names_the_key(store: Store) -> None:
    """So that what he has signed before would count as what a former key of this publisher has signed."""
    theirs = Project.at(store.folder / "theirs", key=store.thief)
    theirs.publish("1")
    put(theirs.store, store.by_old)
    store.name_key(store.thief, store.old)
    store.show(store.thief)
    reader = store.reader("r", store.old)
    for options in ({}, {"accept": head(store.by_old)}):
        with pytest.raises(BadSignature, match="which has signed nothing in it yet"):
            reader.check(**options)


def test_a_thief_of_a_key_that_was_revoked_names_his_own(store: Store) -> None:
    """He has a copy of it from before."""
    store.name_key(store.old, store.thief)
    store.add(store.thief)
    store.show(store.thief)
    store.bring_key(store.thief)
    store.home.revoke(store.old)
    with pytest.raises(BadSignature, match=f"it is by {store.thief}, for which no key vouches"):
        store.reader("r", store.old).check()


def test_a_subkey_cannot_replace_the_primary_key(store: Store) -> None:
    """It is used every day, often where nobody looks."""
    subkey = store.home.subkey(store.old)
    renew(store.by_old)
    store.name_key(f"{subkey}!", store.thief)
    store.add(store.thief)
    store.show(store.thief)
    store.bring_key(store.thief)
    with pytest.raises(BadSignature, match=f"only the store's present primary key itself, {store.old}, can name"):
        store.reader("r", store.old).check()


def test_a_thief_who_names_the_publishers_new_key_before_him_for_ever(store: Store) -> None:
    """The days count from what the entry says of its date, and the new key vouches for that once it signs."""
    store.name_key(store.old, store.new, when="9000-01-01T00:00:00+00:00")
    before = store.everything()
    for act in (store.replace, store.reader("r", store.old).check):
        with pytest.raises(Broken, match=r"00000002\.json\.asc lets .* sign until 9000-04-01, .* more than 365 days"):
            act()
    assert store.everything() == before
    store.add(store.new)
    store.bring_key(store.new)
    store.show(store.new)
    for key in (store.old, store.new):
        with pytest.raises(Broken, match="which is more than 365 days"):
            store.reader(f"{key}-2", key).check()


def test_a_thief_who_names_the_publishers_new_key_before_him_for_longer(store: Store) -> None:
    """The publisher's own days were for nothing, and he was told of it by a date alone."""
    store.name_key(store.old, store.new, key_days=365)
    before = store.everything()
    with pytest.raises(ConfigError, match=r"--days: .*00000002\.json\.asc is there already, and lets .* sign until "):
        store.replace(days=1)
    assert store.everything() == before
    store.replace(days=365)
    assert len(store.log) == 3


def test_a_fork_in_which_the_thief_names_his_own_key(store: Store) -> None:
    before = away(store.by_old, store.folder / "before")
    reader, fresh = store.reader("r", store.old), store.reader("n", store.new)
    store.replace()
    reader.check()
    fresh.check()
    put(before, store.by_old)
    store.name_key(store.old, store.thief)
    store.add(store.thief)
    store.show(store.thief)
    store.bring_key(store.thief)
    with pytest.raises(Fork, match="entry 3 of its log is another one than it was before"):
        reader.check()
    with pytest.raises(BadSignature, match=f"nothing that {store.new} has signed names that key"):
        fresh.check()
    for options in ({}, {"accept": head(store.by_old)}):
        with pytest.raises(FoundryError):
            fresh.check(**options)
