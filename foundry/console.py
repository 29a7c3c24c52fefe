"""How messages look: a live line for each running stage on a terminal, plain lines with the time in a pipe or CI.

Progress and errors go to stderr, results to stdout.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from foundry import files, log
from foundry.errors import FoundryError
from foundry.log import StageRecord

UNEXPECTED = 70
HEARTBEAT_SECONDS = 30.0
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)?")
_MARKS = {"built": ("✓", "green"), "reused": ("=", "cyan"), "failed": ("✗", "red")}


def clean(text: str) -> str:
    """text without what could move the cursor or change colours."""
    return "".join(c for c in _ESCAPES.sub("", text).expandtabs() if c == "\n" or c.isprintable())


def duration(seconds: float) -> str:
    """Seconds for people: "4.2 s", "2 min 05 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _ending(record: StageRecord) -> str:
    if record.outcome == "reused":
        return f"reused: {record.reason}"
    return f"{record.outcome} in {duration(record.seconds)}"


@dataclass
class Plain:
    """Lines with the time of day, for a pipe, a file or CI."""

    stream: TextIO
    clock: float = field(default_factory=time.monotonic)
    _spoken: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _line(self, stage: str, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        label = f"{stage}: " if stage else ""
        with self._lock:
            self._spoken[stage] = time.monotonic()
            for line in clean(text).splitlines():
                print(f"{stamp} {label}{line}", file=self.stream, flush=True)

    def started(self, stage: str, reason: str) -> None:
        self._line(stage, f"building: {reason}")

    def ended(self, record: StageRecord) -> None:
        self._line(record.name, _ending(record))

    def info(self, stage: str, text: str) -> None:
        self._line(stage, text)

    def activity(self, stage: str, text: str) -> None:
        """Printed now and then only, to show that a long command is alive."""
        last = self._spoken.get(stage, self.clock)
        if text.strip() and time.monotonic() - last >= HEARTBEAT_SECONDS:
            self._line(stage, f"… {text}")


@dataclass
class _Running:
    begin: float
    newest: str = ""


class Terminal:
    """A line for each stage under way, with its newest output, below the lines of what has happened."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self.live = Live(console=console, get_renderable=self._lines, refresh_per_second=4, transient=True)

    def _lines(self) -> Group:
        with self._lock:
            running = list(self._running.items())
        now = time.monotonic()
        rows = []
        for name, stage in running:
            row = Text(f"⋯ {name}  {duration(now - stage.begin)}  ", no_wrap=True, overflow="ellipsis")
            row.append(stage.newest, style="dim")
            rows.append(row)
        return Group(*rows)

    def started(self, stage: str, reason: str) -> None:
        with self._lock:
            self._running[stage] = _Running(time.monotonic(), f"building: {clean(reason)}")

    def ended(self, record: StageRecord) -> None:
        with self._lock:
            self._running.pop(record.name, None)
        mark, colour = _MARKS.get(record.outcome, ("·", "default"))
        self.console.print(
            f"[{colour}]{mark}[/] [bold]{escape(record.name)}[/] {escape(_ending(record))}", highlight=False
        )

    def info(self, stage: str, text: str) -> None:
        label = f"[bold]{escape(stage)}[/]: " if stage else ""
        self.console.print(f"  {label}{escape(clean(text))}", highlight=False)

    def activity(self, stage: str, text: str) -> None:
        newest = clean(text).strip()
        with self._lock:
            if newest and stage in self._running:
                self._running[stage].newest = newest.splitlines()[-1]


@contextmanager
def messages(stream: TextIO | None = None) -> Iterator[None]:
    """Show the messages of the block on stream (stderr), as a terminal or a pipe wants them."""
    target = stream or sys.stderr
    if not (target.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")):
        log.use(Plain(target))
        try:
            yield
        finally:
            log.use(log.Silent())
        return
    terminal = Terminal(Console(file=target))
    log.use(terminal)
    with terminal.live:
        try:
            yield
        finally:
            log.use(log.Silent())


def report(error: FoundryError, stream: TextIO | None = None) -> int:
    """Print what happened, where and what to do next; returns the exit code."""
    target = stream or sys.stderr
    console = Console(file=target, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error:[/] {escape(clean(error.brief))}")
    for line in clean(error.details or "").splitlines():
        console.print(f"  {escape(line)}")
    if error.log:
        console.print(f"  log:  {escape(near(error.log))}")
    if error.hint:
        first, *more = clean(error.hint).splitlines()
        console.print(f"  hint: {escape(first)}")
        for line in more:
            console.print(f"        {escape(line)}")
    return error.code


def report_unexpected(error: BaseException, logs: Path, stream: TextIO | None = None) -> int:
    """Keep a traceback in logs and print one line that names it: for errors that are ours, not the user's."""
    story = "".join(traceback.format_exception(error))
    kept = logs / "unexpected.log"
    try:
        files.write(kept, story)
    except OSError:
        print(story, file=stream or sys.stderr)
        return UNEXPECTED
    brief = f"unexpected {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    report(
        FoundryError(brief, log=kept, hint="this is a bug in Patroni Foundry: please report it with that file"), stream
    )
    return UNEXPECTED


def near(path: Path) -> str:
    """A path as seen from the current folder, where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def json_lines(value: object) -> list[str]:
    """value as lines of JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).splitlines()


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Rows as lines with aligned columns."""
    words = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in words) for i in range(len(words[0]))] if words else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in words]


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return "-" if value is None else str(value)


def out(text: str = "") -> None:
    """One line of a result, on stdout."""
    print(text, flush=True)
