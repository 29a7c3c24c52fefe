"""The words that strength.py knows, from words.list, which says whose they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def _read() -> dict[str, frozenset[str]]:
    lists: dict[str, set[str]] = {}
    for line in Path(__file__).with_name("words.list").read_text("utf-8").splitlines():
        if line.startswith("["):
            lists[line.strip("[]")] = set()
        elif not line.startswith("#"):
            lists[list(lists)[-1]].update(line.split())
    return {name: frozenset(words) for name, words in lists.items()}


LISTS = _read()
GLUE, KNOWN, COMMON = LISTS["glue"], LISTS["known"], LISTS["common"]
FAMILIAR = GLUE | KNOWN


@cache
def prices() -> dict[str, float]:
    """Return the words of all lists with their bits: the choice of the list, and of the word in it."""
    return dict.fromkeys(COMMON, 13.0) | dict.fromkeys(FAMILIAR, 10.0)


@cache
def lengths() -> dict[str, frozenset[int]]:
    """Return the lengths of the words that begin with two letters."""
    found: dict[str, set[int]] = {}
    for word in prices():
        if len(word) > 1:
            found.setdefault(word[:2], set()).add(len(word))
    return {start: frozenset(sizes) for start, sizes in found.items()}
