"""How messages and errors look in a pipe and on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from foundry import console, log
from foundry.errors import CommandFailed, FoundryError


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_errors_look_as_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = CommandFailed(
        "image debian-12: packer exited 1",
        details="last output: E: Unable to locate package [patroni-node]",
        log=tmp_path / "build/logs/1/packer.log",
        hint="`./inv build-deb` first",
    )
    stream = io.StringIO()
    assert console.report(error, stream) == 5
    assert stream.getvalue() == (
        "error: image debian-12: packer exited 1\n"
        "  last output: E: Unable to locate package [patroni-node]\n"
        "  log:  build/logs/1/packer.log\n"
        "  hint: `./inv build-deb` first\n"
    )


def test_an_error_without_details_is_one_line() -> None:
    stream = io.StringIO()
    assert console.report(FoundryError("no"), stream) == 1
    assert stream.getvalue() == "error: no\n"


def test_an_unexpected_error_leaves_its_traceback_in_a_file(tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert console.report_unexpected(caught.value, tmp_path / "logs", stream) == console.UNEXPECTED
    assert stream.getvalue().startswith("error: unexpected ZeroDivisionError: division by zero\n  log:  ")
    assert "Traceback" not in stream.getvalue()
    assert "Traceback" in (tmp_path / "logs/unexpected.log").read_text()


def test_a_pipe_gets_plain_lines_and_no_activity() -> None:
    stream = io.StringIO()
    with console.messages(stream):
        with log.stage("base", "first build"):
            log.info("fetched \x1b[31m3 MB\x1b[0m\x07")
            log.activity("Get:1 …")
        log.reused("deb", "no input changed")
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines[:2] == ["base: building: first build", "base: fetched 3 MB"]
    assert lines[2].startswith("base: built in ")
    assert lines[3:] == ["deb: reused: no input changed"]


def test_a_long_silence_is_broken_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", 0.0)
    stream = io.StringIO()
    with console.messages(stream), log.stage("base", "first build"):
        log.activity("Get:1")
    assert "base: … Get:1\n" in stream.getvalue()


def test_a_failed_stage_says_so() -> None:
    stream = io.StringIO()
    with pytest.raises(FoundryError), console.messages(stream), log.stage("base", "first build"):
        raise FoundryError("no")
    assert "base: failed in " in stream.getvalue()


def test_a_terminal_shows_what_runs_and_its_newest_line() -> None:
    stream = Tty()
    sink = console.Terminal(Console(file=stream, width=80, force_terminal=False))
    sink.started("base", "first build")
    sink.activity("base", "Unpacking\x1b[2J libc6\n")
    sink.console.print(sink._lines())
    assert "base  0.0 s  Unpacking libc6" in stream.getvalue()
    sink.ended(log.StageRecord("base", "built", "", 61.0))
    assert "base built in 1 min 01 s" in stream.getvalue()
    assert not sink._lines().renderables


def test_markup_of_others_is_shown_as_it_is() -> None:
    stream = Tty()
    sink = console.Terminal(Console(file=stream, width=80, no_color=True))
    sink.info("", "[red]x[/]")
    assert "[red]x[/]" in stream.getvalue()


@pytest.mark.parametrize("quiet", [False, True])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    if quiet:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Tty()
    console.report(FoundryError("no"), stream)
    assert ("\x1b[1;31m" in stream.getvalue()) is not quiet


def test_ci_gets_plain_lines_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    stream = Tty()
    with console.messages(stream):
        log.info("hello")
    assert stream.getvalue().endswith(" hello\n")
    assert "\x1b" not in stream.getvalue()


def test_table() -> None:
    assert console.table([("a", 1, None), ("long", ["x", "y"], "z")]) == ["a     1       -", "long  [x, y]  z"]
    assert console.table([]) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (125, "2 min 05 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text
