"""What all tasks of `./inv` share: the workspace, how an act is shown and how it ends, and words by position."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from foundry.errors import FoundryError
from foundry.workspace import Workspace

if TYPE_CHECKING:
    from foundry.config import Config, Setting

WORKSPACE = Workspace.at(Path(__file__).parent)
SET_HELP = "KEY=VALUE: override a key of foundry.yml, e.g. --set build.memory_mib=4096 (may be repeated)"


def configuration(settings: list[str], *, locked: bool = True) -> Config:
    """foundry.yml with what --set and FOUNDRY_SET say. Raises ConfigError."""
    from foundry import config

    return config.load(WORKSPACE.config, overrides(settings), locked=locked)


def overrides(settings: list[str]) -> list[Setting]:
    """What --set and FOUNDRY_SET say. Raises ConfigError."""
    from foundry import config

    return config.settings_of(settings, os.environ.get("FOUNDRY_SET", ""))


@contextmanager
def session() -> Iterator[None]:
    """Show messages, keep logs, end everything on Ctrl-C, and turn errors into exit codes."""
    from foundry import console, files, run

    code = 0
    try:
        with run.interruptible(), console.messages():
            run.keep_logs_in(WORKSPACE.logs)
            yield
    except FoundryError as error:
        code = console.report(error)
    except Exit:
        raise
    except Exception as error:
        full = files.out_of_space(error, WORKSPACE.build)
        code = console.report(full) if full else console.report_unexpected(error, WORKSPACE.logs)
    if code:
        sys.exit(code)


def show(act: Callable[[], list[str]]) -> None:
    """Do it, and print the lines that it returns."""
    from foundry import console

    lines: list[str] = []
    with session():
        lines = act()
    for line in lines:
        console.out(line)


def given(path: str) -> Path:
    """A path of the command line, as seen from where the user called ./inv."""
    return Path(os.environ.get("FOUNDRY_CALLED_FROM", "."), path).resolve()


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
