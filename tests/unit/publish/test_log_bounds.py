"""A server signs a log and an index with a key of its own, which anybody has: they are read before that is known."""

from __future__ import annotations

import pytest

from foundry.errors import FoundryError
from foundry.publish import ledger
from foundry.publish.ledger import Broken
from foundry.publish.stores import StoreError
from tests.unit.publish.replacing import Store

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


def refused(store: Store, error: type[FoundryError], why: str) -> None:
    with pytest.raises(error, match=why):
        store.reader("r", store.old).check()


def test_a_log_that_has_no_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry was kept, until a key was found to be nobody's: after the last one."""
    size = sum(path.stat().st_size for path in (store.by_old.store / "log").iterdir())
    monkeypatch.setattr(ledger, "LARGEST_LOG", size - 1)
    refused(store, StoreError, "log is larger than")


def test_an_entry_that_is_larger_than_any(store: Store) -> None:
    """Eight of fifty megabytes took 19 GB of memory."""
    path = store.by_old.store / "log" / store.log[-1]
    # What follows a signature is no part of it.
    path.write_text(path.read_text(encoding="utf-8") + "x" * (64 << 10), encoding="utf-8")
    refused(store, StoreError, r"json\.asc is larger than 65\.5 kB")


@pytest.mark.parametrize("who", [["x"], {}])
def test_an_entry_that_says_what_none_says(who: object, store: Store) -> None:
    """A kilobyte of brackets is twenty of memory."""
    store.add(store.old, who=who)
    refused(store, Broken, "who is neither a text nor a number")


def test_an_index_that_is_larger_than_any(store: Store) -> None:
    path = store.by_old.store / ledger.INDEX
    path.unlink()
    store.bring_key(store.thief)
    store.home.clearsign(("{}," * 5000 + "\n") * 300, path, store.thief)
    refused(store, StoreError, r"index\.asc is larger than 4\.2 MB")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1, "channels": {}, "sequence": 1e999}'])
def test_an_index_of_nothing_that_anybody_would_write(text: str) -> None:
    with pytest.raises(Broken, match="no index of this program's"):
        ledger.parse_index(text)
