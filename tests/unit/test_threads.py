"""What is raised when several things are done at once, and some of them do several things at once themselves."""

from __future__ import annotations

import threading

import pytest

from foundry import run, threads
from foundry.errors import Cancelled, CorruptArtifact


def test_what_failed_is_told_and_not_what_was_ended_because_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inner failure ends the other's command, which is over before the inner one has tidied up after itself."""
    cancelled, over = threading.Event(), threading.Event()
    monkeypatch.setattr(run, "cancel", cancelled.set)

    def fails() -> None:
        raise CorruptArtifact("the cause")

    def tidies() -> None:
        try:
            threads.together(fails, cancelled.wait)
        finally:
            assert over.wait(10)

    def is_ended() -> None:
        assert cancelled.wait(10)
        over.set()
        raise Cancelled("interrupted")

    with pytest.raises(CorruptArtifact, match="the cause"):
        threads.together(tidies, is_ended)


def test_results_come_in_order() -> None:
    first = threading.Event()

    def late() -> str:
        assert first.wait(10)
        return "a"

    def early() -> str:
        first.set()
        return "b"

    assert threads.together(late, early) == ["a", "b"]
