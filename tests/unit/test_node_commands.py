"""Programs that are run with a limit of time, and of what they print."""

from __future__ import annotations

import sys
import time

import pytest

from patroni_node import commands
from patroni_node.commands import feed, run

pytestmark = pytest.mark.real_process


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_program_that_ends() -> None:
    done = run(python("import sys; print('one', flush=True); print('zwölf', file=sys.stderr); sys.exit(3)"), 20)
    assert (done.code, done.first, done.last) == (3, "one", "zwölf")


def test_a_program_that_is_not_there() -> None:
    assert run(["/nonexistent/program"], 1).code is None


def test_what_a_program_reads_is_in_no_argument() -> None:
    done = feed(python("import sys; print(sys.stdin.read()[::-1], sys.argv)"), "secret", 20)
    assert (done.code, done.output) == (0, "terces ['-c']\n")


@pytest.mark.parametrize("closes", ["", "os.close(1); os.close(2)"])
def test_a_program_that_takes_too_long(closes: str) -> None:
    begin = time.monotonic()
    done = run(python(f"import os, time; print('one', flush=True)\n{closes}\ntime.sleep(60)"), 1)
    assert (done.code, done.output) == (None, "one\n")
    assert time.monotonic() - begin < 30
    assert done.last == "one"


def test_a_program_that_is_no_longer_waited_for() -> None:
    begin = time.monotonic()
    assert run(python("import time; time.sleep(60)"), 60, lambda: True).code is None
    assert time.monotonic() - begin < 30


def test_a_program_that_prints_without_end() -> None:
    done = run(["yes"], 60)
    assert done.code is None
    assert commands.MAX_BYTES < len(done.output) <= commands.MAX_BYTES + commands.CHUNK


def test_a_child_that_keeps_the_output_open_holds_nothing_up() -> None:
    """It outlives the program that was asked for, which has ended."""
    begin = time.monotonic()
    done = run(["sh", "-c", "sleep 20 & echo started"], 1)
    assert done.output == "started\n"
    assert time.monotonic() - begin < 15
