"""The program that writes to a cluster and watches it.

`python -m foundry.lab.writer --host pg-srv1=10.129.0.21 … HISTORY` is run in a lab's network (foundry/lab/witness.py
does it) until SIGINT, SIGTERM, the end of its input (--until-eof) or of its time. It says "ready" after the first
value that was acknowledged. All it sees goes to the file HISTORY as JSON lines, each before what follows from it;
foundry/lab/history.py reads them. What clients and samplers do: foundry/lab/clients.py.

All times are time.monotonic() of this one process: CLOCK_MONOTONIC, which all processes of the host share, and which
takes no part in its clock's jumps. So the times of one history can be compared with each other, and with moments that
a test has noted.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from foundry.errors import Cancelled, ConfigError, FoundryError
from foundry.lab.clients import CONNECT_SECONDS, TABLES, Client, Endpoint, Journal, Options, Program, Sampler
from foundry.lab.session import Failed, Login, Session

READY = "ready"
SETUP_SECONDS = 60.0
SETUP_PAUSE = 0.3


def set_up(options: Options, woken: int) -> Endpoint:
    """Make the tables, through the first member that takes writes, which is returned.

    Raises FoundryError when none does in a minute, Cancelled on a signal.
    """
    deadline = time.monotonic() + SETUP_SECONDS
    said: dict[str, str] = {}
    while time.monotonic() < deadline:
        for endpoint in options.endpoints:
            try:
                session = Session(endpoint.address, options.login, CONNECT_SECONDS, writable=True)
                for statement in TABLES:
                    session.ask(statement, options.timeout)
                session.close()
            except Failed as failed:
                said[f"{endpoint.member} ({endpoint.address})"] = f"{failed.code} {failed}"
            else:
                return endpoint
        if select.select([woken], [], [], SETUP_PAUSE)[0]:
            raise Cancelled("interrupted")
    raise FoundryError(
        f"no member took the writer's tables within {SETUP_SECONDS:.0f} s",
        details="\n".join(f"{name}: {why}" for name, why in said.items()),
        hint="is there a leader, and does pg_hba let this user in from here?",
    )


def run(options: Options, ready: Callable[[], None]) -> None:
    """Write and sample until it is time to end. ready: called after the first value that was acknowledged.

    Raises FoundryError where no member takes the tables; and what a client or a sampler stumbled over.
    """
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _take_note)
    leader = set_up(options, woken)
    program = Program(options, Journal(options.output))
    program.board.accepted(leader)
    members = [[e.member, e.address] for e in options.endpoints]
    start = time.monotonic()
    program.journal.write("begin", at=start, run=program.run, members=members, wall=time.time())
    work = [Sampler(program, e, start).work for e in options.endpoints]
    work += [Client(program, number).work for number in range(options.clients)]
    with ThreadPoolExecutor(len(work) + 1) as pool:
        futures = [pool.submit(act) for act in work]
        for future in futures:
            future.add_done_callback(lambda _: _poke(wake))
        pool.submit(_announce, program, ready)
        try:
            _wait_for_end(options, woken, futures)
        finally:
            program.ending.begin()
            program.first.set()
    program.journal.write("end", at=time.monotonic())
    for future in futures:
        future.result()


def _take_note(number: int, frame: object) -> None:
    """Do nothing: the number in the pipe of set_wakeup_fd is all that is wanted."""


def _poke(wake: int) -> None:
    # A full pipe has woken its reader already.
    with suppress(BlockingIOError):
        os.write(wake, b"\0")


def _announce(program: Program, ready: Callable[[], None]) -> None:
    program.first.wait()
    if not program.ending.within(0):
        ready()


def _wait_for_end(options: Options, woken: int, futures: list[Future[None]]) -> None:
    """Return on a signal, at the end of input or time, or when a thread has ended, which none does by itself."""
    deadline = time.monotonic() + options.seconds
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    if options.until_eof:
        poll.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    while (left := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(min(left, 3600) * 1000):
            if handle == woken or not os.read(handle, 4096):
                return


def parse(words: list[str]) -> Options:
    """The options of a command line. Raises ConfigError."""
    parser = argparse.ArgumentParser(prog="python -m foundry.lab.writer", allow_abbrev=False)
    parser.add_argument("output", type=Path, metavar="HISTORY")
    parser.add_argument("--host", action="append", required=True, metavar="MEMBER=ADDRESS")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--database", default="postgres")
    parser.add_argument("--user", default="postgres")
    parser.add_argument("--password-file", type=Path, help="default: the environment's PGPASSWORD")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=100.0, help="writes a second, of all clients together")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between two ticks of the samplers")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds that a client waits for its statement")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--until-eof", action="store_true", help="end with standard input")
    given = parser.parse_args(words)
    endpoints = tuple(Endpoint(*host.partition("=")[::2]) for host in given.host)
    if not all(e.member and e.address for e in endpoints):
        raise ConfigError("--host: MEMBER=ADDRESS is wanted", details=" ".join(given.host))
    if min(given.clients, given.rate, given.interval, given.timeout) <= 0:
        raise ConfigError("--clients, --rate, --interval and --timeout must be above 0")
    password = os.environ.get("PGPASSWORD", "")
    if given.password_file:
        password = given.password_file.read_text(encoding="utf-8").rstrip("\n")
    login = Login(given.user, password, given.database, given.port)
    names = ("output", "clients", "rate", "interval", "timeout", "seconds", "until_eof")
    return Options(endpoints, login, **{name: getattr(given, name) for name in names})


def main(words: list[str]) -> int:
    """Run the program; returns its exit code, and says "ready" in a line of its own."""
    try:
        run(parse(words), lambda: print(READY, flush=True))
    except FoundryError as error:
        print("\n  ".join(filter(None, (f"error: {error.brief}", error.details, error.hint))), file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
