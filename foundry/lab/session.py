"""A connection to PostgreSQL whose every step ends by a deadline, and which knows what became of a statement.

libpq's own limits (connect_timeout, tcp_user_timeout, keepalives) count whole seconds, and none of them ends the wait
for a server whose kernel still acknowledges packets while its processes are frozen. So this drives libpq's
non-blocking calls (psycopg.pq) and waits for the socket itself. Addresses only: looking up a name would block.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

SLICE_SECONDS = 0.2
"""How soon a wait notices that the whole program is to end."""
# PostgreSQL manual, appendix A: statement_completion_unknown, and internal errors, of which nothing is promised.
_UNSURE = ("40003", "08", "XX", "58")


class Failed(Exception):
    """A statement without an answer that it was executed. code: an SQLSTATE, or "timeout"."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class NotSent(Failed):
    """No byte of the statement has left: it was not executed."""


class Refused(Failed):
    """The server answered with an ERROR: what the statement did is rolled back."""


class Doubtful(Failed):
    """The statement was sent, and nobody knows whether it was executed."""


@dataclass(frozen=True)
class Login:
    """Who connects, to which database, and at which port. settings: of PostgreSQL, for the session."""

    user: str
    password: str = field(repr=False)
    database: str = "postgres"
    port: int = 5432
    settings: Mapping[str, str] = field(default_factory=dict)


class Session:
    """One connection, made when this is. Raises NotSent when none comes about in so many seconds.

    writable: as target_session_attrs=read-write; a server that takes no writes then counts as unreachable.
    limit: the moment (time.monotonic()) by which every wait ends, whatever its own deadline; may move.
    """

    def __init__(
        self,
        address: str,
        login: Login,
        seconds: float,
        *,
        writable: bool = False,
        limit: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._limit = limit
        self._unreplicated = False
        options = " ".join(f"-c {name}={value}" for name, value in login.settings.items())
        target = make_conninfo(
            hostaddr=address,
            port=login.port,
            dbname=login.database,
            user=login.user,
            password=login.password,
            options=options,
            application_name="foundry-lab",
            target_session_attrs="read-write" if writable else "any",
            gssencmode="disable",
        )
        try:
            self._link = pq.PGconn.connect_start(target.encode())
            self._connect(time.monotonic() + seconds)
        except psycopg.OperationalError as error:
            raise NotSent("08001", _first_line(str(error))) from error

    def _connect(self, deadline: float) -> None:
        self._link.notice_handler = self._notice
        state = pq.PollingStatus.WRITING
        try:
            if self._link.status == pq.ConnStatus.BAD:
                raise NotSent("08001", _first_line(self._link.get_error_message()))
            while state != pq.PollingStatus.OK:
                self._wait(select.POLLOUT if state == pq.PollingStatus.WRITING else select.POLLIN, deadline)
                state = pq.PollingStatus(self._link.connect_poll())
                if state == pq.PollingStatus.FAILED:
                    raise NotSent("08001", _first_line(self._link.get_error_message()))
            self._link.nonblocking = 1
        except TimeoutError as error:
            self.close()
            raise NotSent("timeout", "no connection in time") from error
        except BaseException:
            self.close()
            raise

    def _notice(self, notice: pq.abc.PGresult) -> None:
        # A cancelled wait for a synchronous standby ends in a commit and a warning (syncrep.c, SyncRepWaitForLSN):
        # the client reads INSERT 0 1 of something that exists on one member only.
        if notice.error_field(pq.DiagnosticField.SOURCE_FUNCTION) == b"SyncRepWaitForLSN":
            self._unreplicated = True

    def ask(self, statement: str, seconds: float) -> list[str | None]:
        """Run one statement in a transaction of its own; returns its first row, or nothing where it has none.

        Returns after the server is ready for the next one, thus after the commit. Raises NotSent, Refused, Doubtful.
        """
        deadline = time.monotonic() + seconds
        self._look_for_goodbye()
        self._unreplicated = False
        error: pq.abc.PGresult | None = None
        row: list[str | None] = []
        try:
            # The simple protocol: with the extended one CommandComplete is sent before the commit.
            self._link.send_query(statement.encode())
            self._flush(deadline)
            while (result := self._result(deadline)) is not None:
                if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
                    error = error or result
                elif result.ntuples and not row:
                    values = [result.get_value(0, column) for column in range(result.nfields)]
                    row = [None if value is None else value.decode() for value in values]
        except TimeoutError as late:
            raise Doubtful("timeout", "no answer in time") from late
        except psycopg.OperationalError as broken:
            raise _judged(error) or Doubtful("08006", _first_line(str(broken))) from broken
        if error is not None:
            raise _judged(error, whole=True) or Doubtful("XX000", "an answer that is none")
        if self._unreplicated:
            raise Doubtful("01000", "committed, but the wait for the synchronous standby was cancelled")
        return row

    def _look_for_goodbye(self) -> None:
        """Notice that the server has closed the connection meanwhile, before anything is sent to it."""
        try:
            if select.select([self._link.socket], [], [], 0)[0]:
                self._link.consume_input()
        except (psycopg.OperationalError, ValueError) as error:
            raise NotSent("08006", _first_line(str(error))) from error
        if self._link.status == pq.ConnStatus.BAD:
            raise NotSent("08006", _first_line(self._link.get_error_message()))

    def _flush(self, deadline: float) -> None:
        while self._link.flush():
            if self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                self._link.consume_input()

    def _result(self, deadline: float) -> pq.abc.PGresult | None:
        while self._link.is_busy():
            self._wait(select.POLLIN, deadline)
            self._link.consume_input()
        return self._link.get_result()

    def _wait(self, events: int, deadline: float) -> int:
        """Wait for the socket; returns what it is ready for. Raises TimeoutError."""
        poll = select.poll()
        poll.register(self._link.socket, events)
        while True:
            left = min(deadline, self._limit()) - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = poll.poll(1000 * min(left, SLICE_SECONDS))
            if ready:
                return ready[0][1]

    def close(self) -> None:
        """Close the connection, without waiting for the server."""
        self._link.finish()


def _judged(result: pq.abc.PGresult | None, *, whole: bool = False) -> Refused | Doubtful | None:
    """What an error says of the statement. whole: the server was ready for the next one afterwards."""
    if result is None:
        return None
    code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode() or "XX000"
    severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
    why = _first_line((result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace"))
    # FATAL may come while the transaction, committed already, waits for its standby.
    if whole and severity == b"ERROR" and not code.startswith(_UNSURE):
        return Refused(code, why)
    return Doubtful(code, why)


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:200] if lines else "no reason given"
