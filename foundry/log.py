"""Messages of a run: library code emits them here, the command line decides how they look.

A stage is one box of the flow (archive, deb, base, packer, image, verify). `stage()` times it, and `current_stage()`
lets run.py file a command's log under it. Stages may run side by side in threads: the label is a context variable.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

_label: contextvars.ContextVar[str] = contextvars.ContextVar("stage", default="")


@dataclass
class StageRecord:
    """What became of one stage: outcome is "built", "reused", "failed" or "running"; seconds of wall time."""

    name: str
    outcome: str = "running"
    reason: str = ""
    seconds: float = 0.0


class Sink(Protocol):
    """Where messages go."""

    def started(self, stage: str, reason: str) -> None: ...
    def ended(self, record: StageRecord) -> None: ...
    def info(self, stage: str, text: str) -> None: ...
    def activity(self, stage: str, text: str) -> None: ...


class Silent:
    """A sink that drops everything: the default for library use and for unit tests."""

    def started(self, stage: str, reason: str) -> None: ...
    def ended(self, record: StageRecord) -> None: ...
    def info(self, stage: str, text: str) -> None: ...
    def activity(self, stage: str, text: str) -> None: ...


@dataclass
class _Run:
    sink: Sink = field(default_factory=Silent)
    records: list[StageRecord] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


_run = _Run()


def use(sink: Sink) -> None:
    """Send all further messages to sink and forget the records of earlier stages."""
    _run.sink = sink
    _run.records = []


def records() -> list[StageRecord]:
    """The stages of this run in the order in which they began."""
    return list(_run.records)


def current_stage() -> str:
    """The name of the stage that this thread works for, or ""."""
    return _label.get()


@contextmanager
def stage(name: str, reason: str) -> Iterator[StageRecord]:
    """Time a stage that is being built because of reason, and report its end whatever happens."""
    record = StageRecord(name, reason=reason)
    with _run.lock:
        _run.records.append(record)
    token = _label.set(name)
    _run.sink.started(name, reason)
    begin = time.monotonic()
    try:
        yield record
        record.outcome = "built"
    except BaseException:
        record.outcome = "failed"
        raise
    finally:
        record.seconds = time.monotonic() - begin
        _label.reset(token)
        _run.sink.ended(record)


def reused(name: str, reason: str) -> None:
    """Report a stage whose earlier result is used again because of reason."""
    record = StageRecord(name, "reused", reason)
    with _run.lock:
        _run.records.append(record)
    _run.sink.ended(record)


def info(text: str) -> None:
    """One line that a person wants to read even in a log."""
    _run.sink.info(_label.get(), text)


def activity(text: str) -> None:
    """What goes on right now (a command's newest line): shown only where it can be overwritten."""
    _run.sink.activity(_label.get(), text)
