"""Other programs: systemctl and patronictl, run with a limit of time."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

PATRONICTL = ("patronictl", "-c", "/etc/patroni/patroni.yml")
POLL_SECONDS = 0.2
MAX_BYTES = 4 << 20
"""What a program may print: psql passes on what answers in place of PostgreSQL, which need not end."""
CHUNK = 1 << 16


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it printed; code is None where it was ended by us, or is not there."""

    code: int | None
    output: str

    @property
    def first(self) -> str:
        """The first line of the output."""
        return self._lines[0]

    @property
    def last(self) -> str:
        """The last line of the output."""
        return self._lines[-1]

    @property
    def _lines(self) -> list[str]:
        if self.output.strip():
            return [line.strip() for line in self.output.strip().splitlines()]
        return ["it did not end in time" if self.code is None else f"exit code {self.code}"]


Feed = Callable[[Sequence[str], str, float], Ended]
"""Takes a program's words, what it reads, and the most seconds that it may take."""
Run = Callable[[Sequence[str], float, Callable[[], bool]], Ended]
"""Takes a program's words, the most seconds that it may take, and a function that says when to stop waiting."""


def never() -> bool:
    """For programs that are not to be stopped."""
    return False


def feed(words: Sequence[str], text: str, seconds: float) -> Ended:
    """Run a program as run does, and let it read what nobody else may see: arguments are for every account."""
    descriptor = os.memfd_create("patroni-node")
    with open(descriptor, "w+", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        stream.seek(0)
        return run(words, seconds, stdin=descriptor)


def run(
    words: Sequence[str], seconds: float, stop: Callable[[], bool] = never, stdin: int = subprocess.DEVNULL
) -> Ended:
    """Run a program to its end, or end it after seconds, after MAX_BYTES, or as soon as stop() says so.

    It has a session of its own: Ctrl-C reaches this program, which decides what becomes of that one.
    """
    try:
        process = subprocess.Popen(
            words,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        return Ended(None, f"{words[0]}: {error.strerror}")
    deadline = time.monotonic() + seconds
    with process:
        assert process.stdout is not None
        code, output = _follow(process, process.stdout.fileno(), lambda: stop() or time.monotonic() >= deadline)
        process.kill()
    return Ended(code, output.decode("utf-8", "replace"))


def _follow(process: subprocess.Popen[bytes], stdout: int, stop: Callable[[], bool]) -> tuple[int | None, bytes]:
    """Return a program's exit code, None before its end, and what it has printed."""
    output, open_ = bytearray(), True
    os.set_blocking(stdout, False)
    while len(output) <= MAX_BYTES:
        if open_ and select.select([stdout], [], [], POLL_SECONDS)[0]:
            chunk = os.read(stdout, CHUNK)
            output += chunk
            open_ = bool(chunk)
        if not open_:
            try:
                return process.wait(POLL_SECONDS), bytes(output)
            except subprocess.TimeoutExpired:
                pass
        if stop():
            break
    return None, bytes(output)


@dataclass(frozen=True)
class Unit:
    """A unit's state as systemd has it; what is not known is empty."""

    name: str
    active: str = ""
    sub: str = ""
    result: str = ""

    def __str__(self) -> str:
        if self.active == "failed":
            return f"failed ({self.result})"
        return f"{self.active} ({self.sub})" if self.active else "unknown"


def units(names: Iterable[str], run: Run = run, seconds: float = 3.0) -> dict[str, Unit]:
    """Return the states of services, by their names without `.service`."""
    wanted = list(names)
    options = ["--property=Id,ActiveState,SubState,Result", "--", *(f"{name}.service" for name in wanted)]
    said = run(["systemctl", "show", *options], seconds, never).output
    found = {}
    for block in said.split("\n\n"):
        facts = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = facts.get("Id", "").removesuffix(".service")
        found[name] = Unit(name, facts.get("ActiveState", ""), facts.get("SubState", ""), facts.get("Result", ""))
    return {name: found.get(name, Unit(name)) for name in wanted}
