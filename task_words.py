"""Tasks of Invoke that take words by position where Invoke itself cannot: any number, or one that may be left out."""

from __future__ import annotations

import sys

from invoke.parser.argument import Argument
from invoke.tasks import Task


class TakesWords(Task):  # type: ignore[type-arg]
    """A task with any number of words like pg-srv1=10.129.0.21, where Invoke knows only a fixed number of them."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        options = [a for a in super().get_arguments(ignore_unknown_help) if a.name != "words"]
        words = words_of(sys.argv, "user-data", "--shared")
        return [*options, *(Argument(name=f"word-{n}", positional=True) for n in range(len(words)))]


class MayTakeANode(Task):  # type: ignore[type-arg]
    """A task whose one word may be left out, where Invoke wants every positional argument or takes none."""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        options = super().get_arguments(ignore_unknown_help)
        given = bool(words_of(sys.argv, self.name.replace("_", "-"), "--follow"))
        for argument in (a for a in options if a.positional):
            argument.positional = given
            # Only what has no value yet takes a word.
            argument.default = None if given else argument.default
        return options


def words_of(argv: list[str], task: str, *flags: str) -> list[str]:
    """What stands after a task, and is no option or value of one; flags: its options that have no value."""
    own = argv[argv.index(task) + 1 :] if task in argv else []
    before = ["", *own]
    return [
        word
        for word, last in zip(own, before, strict=False)
        if not word.startswith("-") and (not last.startswith("-") or "=" in last or last in flags)
    ]
