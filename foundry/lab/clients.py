"""Clients that write to a cluster all the time, and samplers that ask each member whether it takes writes.

- A *client* gives each value to one INSERT in a transaction of its own, and never a second time. It writes to the
  member whose probe was accepted last, and searches for it anew when that one fails; no connection is made where the
  samplers know of none, so that a cluster in trouble is not troubled further. A statement is waited for twice as
  long after each one that got no answer: a synchronous cluster without a standby may hold a commit for minutes, and
  abandoned commits pile up as connections.
- A *sampler* asks one member at each tick, all of them at the same ticks: first whether it is in recovery (a refused
  INSERT is an error in the server's log, many times a second), and if not, for a write of its own, committed with
  `synchronous_commit = local`, so that a missing standby does not hide a writable member.

The table has no unique constraint: one would turn the second application of a value into an error for the client,
and hide from the table what the judge looks for.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from foundry.lab.history import VALUES
from foundry.lab.session import Doubtful, Failed, Login, NotSent, Refused, Session

PROBES = "foundry_probe"
TABLES = (
    f"CREATE TABLE IF NOT EXISTS {VALUES} (run text NOT NULL, client int NOT NULL, sequence bigint NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS {PROBES} (run text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())",
)
# A member's own timeline and the end of its WAL; pg_control_checkpoint() has the timeline of the last checkpoint,
# which lies before a promotion for a while.
_WHERE = "RETURNING pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_wal_insert_lsn()"
CONNECT_SECONDS = 1.0
PROBE_SECONDS = 1.0
PAUSE_SECONDS = 0.1
RECONNECT_SECONDS = 0.25
LONGEST_WAIT = 30.0
GRACE_SECONDS = 3.0
"""How long statements under way are waited for at the end."""


@dataclass(frozen=True)
class Endpoint:
    """One address of a member."""

    member: str
    address: str


@dataclass(frozen=True)
class Options:
    """What to do. rate: writes a second of all clients together. interval: seconds between two ticks of the samplers.

    timeout: seconds that a client waits for its statement.
    """

    endpoints: tuple[Endpoint, ...]
    login: Login
    output: Path
    clients: int = 4
    rate: float = 100.0
    interval: float = 0.1
    timeout: float = 3.0
    seconds: float = 3600.0
    until_eof: bool = False


class Journal:
    """The history file. A line is with the kernel before the call returns, so a killed writer loses none."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._lock = threading.Lock()

    def write(self, kind: str, **values: object) -> None:
        """Add a line. Raises OSError when the disk is full: a history with holes would be judged wrongly."""
        line = json.dumps({"kind": kind, **{k: v for k, v in values.items() if v is not None}}) + "\n"
        data = line.encode()
        with self._lock:
            while data:
                data = data[os.write(self._handle, data) :]


class Ending:
    """Whether the program is to end, and the moment by which every wait has ended then."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._limit = math.inf

    def begin(self) -> None:
        self._limit = time.monotonic() + GRACE_SECONDS
        self._event.set()

    def limit(self) -> float:
        return self._limit

    def within(self, seconds: float) -> bool:
        """Wait; returns at once, and True, when it is time to end."""
        return self._event.wait(max(0.0, seconds))


@dataclass
class Board:
    """Which endpoints took their last probe, and when: what clients choose from."""

    _accepted: dict[Endpoint, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accepted(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._accepted[endpoint] = time.monotonic()

    def lost(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._accepted.pop(endpoint, None)

    def best(self) -> Endpoint | None:
        """The one that took a probe last."""
        with self._lock:
            return max(self._accepted, key=self._accepted.__getitem__, default=None)


@dataclass
class Program:
    """What clients and samplers share."""

    options: Options
    journal: Journal
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    board: Board = field(default_factory=Board)
    ending: Ending = field(default_factory=Ending)
    first: threading.Event = field(default_factory=threading.Event)
    """Set by the first value that is acknowledged."""


@dataclass
class Client:
    """Appends values 1, 2, 3 … of its own."""

    program: Program
    number: int
    _session: Session | None = None
    _endpoint: Endpoint | None = None
    _unanswered: int = 0

    def work(self) -> None:
        options, ending = self.program.options, self.program.ending
        pace = options.clients / options.rate
        due = time.monotonic() + pace * self.number / options.clients
        sequence = 0
        while not ending.within(due - time.monotonic()):
            sequence += 1
            acknowledged = self._append(sequence)
            due = max(due + pace, time.monotonic() + (0 if acknowledged else PAUSE_SECONDS))
        self._drop()

    def _append(self, sequence: int) -> bool:
        journal, value = self.program.journal, {"client": self.number, "sequence": sequence}
        journal.write("invoke", at=time.monotonic(), **value)
        try:
            row = self._insert(sequence)
        except Failed as failed:
            outcome = "unknown" if isinstance(failed, Doubtful) else "fail"
            member = self._endpoint.member if self._endpoint else None
            moment = time.monotonic()
            journal.write(outcome, at=moment, code=failed.code, why=str(failed), member=member, **value)
            self._unanswered += failed.code == "timeout" and isinstance(failed, Doubtful)
            self._drop()
            return False
        moment = time.monotonic()
        assert self._endpoint is not None
        timeline, position = where(row)
        journal.write("ok", at=moment, member=self._endpoint.member, timeline=timeline, position=position, **value)
        self._unanswered = 0
        self.program.first.set()
        return True

    def _insert(self, sequence: int) -> list[str | None]:
        """Connect where no connection is, and insert. Raises Failed."""
        options = self.program.options
        if self._session is None:
            self._endpoint = self.program.board.best()
            if self._endpoint is None:
                raise NotSent("08001", "no member takes writes")
            address, limit = self._endpoint.address, self.program.ending.limit
            self._session = Session(address, options.login, CONNECT_SECONDS, writable=True, limit=limit)
        statement = f"INSERT INTO {VALUES} VALUES ('{self.program.run}', {self.number}, {sequence}) {_WHERE}"  # noqa: S608
        seconds = min(options.timeout * 2 ** min(self._unanswered, 8), max(LONGEST_WAIT, options.timeout))
        return self._session.ask(statement, seconds)

    def _drop(self) -> None:
        if self._session:
            self._session.close()
        self._session = None


@dataclass
class Sampler:
    """Asks one endpoint at each tick."""

    program: Program
    endpoint: Endpoint
    start: float
    _session: Session | None = None
    _rest: float = 0.0

    def work(self) -> None:
        interval, ending = self.program.options.interval, self.program.ending
        tick = self.start
        while not ending.within(tick - time.monotonic()):
            if time.monotonic() >= self._rest:
                self._probe()
            # A tick that the last answer came too late for is left out.
            passed = math.floor((time.monotonic() - self.start) / interval)
            tick = self.start + interval * (passed + 1)
        self._drop()

    def _probe(self) -> None:
        begin = time.monotonic()
        facts: dict[str, object] = {}
        try:
            begin, facts = self._write()
            outcome = "accepted"
        except Failed as failed:
            outcome = "refused" if isinstance(failed, Refused) else "silent"
            facts = {"code": failed.code, "why": str(failed)}
        end = time.monotonic()
        if outcome == "accepted":
            self.program.board.accepted(self.endpoint)
        else:
            self.program.board.lost(self.endpoint)
        self.program.journal.write("probe", outcome=outcome, begin=begin, end=end, member=self.endpoint.member, **facts)
        if outcome == "silent":
            self._drop()
            self._rest = end + RECONNECT_SECONDS

    def _write(self) -> tuple[float, dict[str, object]]:
        """Write to the member; returns when that began, and what it said. Raises Failed."""
        if self._session is None:
            login = self.program.options.login
            login = replace(login, settings={**login.settings, "synchronous_commit": "local"})
            limit = self.program.ending.limit
            self._session = Session(self.endpoint.address, login, CONNECT_SECONDS, limit=limit)
        if self._session.ask("SELECT pg_is_in_recovery()", PROBE_SECONDS) == ["t"]:
            raise Refused("25006", "in recovery")
        begin = time.monotonic()
        statement = f"INSERT INTO {PROBES} VALUES ('{self.program.run}') {_WHERE}, pg_postmaster_start_time()"  # noqa: S608
        row = self._session.ask(statement, PROBE_SECONDS)
        timeline, position = where(row)
        return begin, {"timeline": timeline, "position": position, "started": row[2]}

    def _drop(self) -> None:
        if self._session:
            self._session.close()
        self._session = None


def where(row: list[str | None]) -> tuple[int, int]:
    """The timeline and the byte of the WAL in a row of the name of a WAL file and a pg_lsn ("16/B374D848")."""
    name, lsn = str(row[0]), str(row[1])
    high, _, low = lsn.partition("/")
    return int(name[:8], 16), (int(high, 16) << 32) + int(low, 16)
