"""A connection to a server that does one odd thing each, by PostgreSQL's own protocol (manual, chapter 55)."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from foundry.lab.session import Doubtful, Failed, Login, NotSent, Refused, Session

Script = Callable[[socket.socket], None]
SOON = 0.2
"""What a test that waits for nothing waits; others get seconds that no test uses up."""


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def fields(**values: str) -> bytes:
    return b"".join(key.encode() + value.encode() + b"\0" for key, value in values.items()) + b"\0"


READY = message("Z", b"I")
ROW = message("T", struct.pack("!H", 1) + b"a\0" + struct.pack("!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0)) + message(
    "D", struct.pack("!HI", 1, 1) + b"7"
)
DONE = message("C", b"INSERT 0 1\0")
CANCELLED_WAIT = message("N", fields(S="WARNUNG", V="WARNING", C="01000", M="…", R="SyncRepWaitForLSN"))


def error(code: str, severity: str = "ERROR") -> bytes:
    return message("E", fields(S="FEHLER", V=severity, C=code, M="no"))


def startup(link: socket.socket, *, standby: bool = False) -> None:
    """Let a client in."""
    while True:
        size, code = struct.unpack("!II", link.recv(8, socket.MSG_WAITALL))
        link.recv(size - 8, socket.MSG_WAITALL)
        if code == 80877103:  # SSLRequest
            link.sendall(b"N")
            continue
        break
    facts = {"server_version": "15.18", "in_hot_standby": "on" if standby else "off"}
    facts["default_transaction_read_only"] = "off"
    statuses = [message("S", f"{name}\0{value}\0".encode()) for name, value in facts.items()]
    key = message("K", struct.pack("!II", 1, 2))
    link.sendall(message("R", struct.pack("!I", 0)) + b"".join(statuses) + key + READY)


def wait_for_query(link: socket.socket) -> str:
    head = link.recv(5, socket.MSG_WAITALL)
    if not head:
        return ""
    (size,) = struct.unpack("!I", head[1:])
    return link.recv(size - 4, socket.MSG_WAITALL).rstrip(b"\0").decode()


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Login]:
    """A server that plays one script for the first client."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            # A client that has had enough may be gone already.
            with contextlib.suppress(OSError), server.accept()[0] as link:
                link.settimeout(10)
                script(link)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Login("postgres", "a password of 'its' own\\", port=server.getsockname()[1])
        finally:
            # Not close(): that would not wake a thread in accept(2).
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def answering(*answers: bytes, stay: bool = True) -> Script:
    """Let a client in and send this for its statement; then stay, or hang up."""

    def script(link: socket.socket) -> None:
        startup(link)
        wait_for_query(link)
        link.sendall(b"".join(answers))
        if stay:
            wait_for_query(link)

    return script


def ask(script: Script, seconds: float = 10.0) -> list[str | None]:
    with serving(script) as login:
        session = Session("127.0.0.1", login, 10.0)
        try:
            return session.ask("INSERT", seconds)
        finally:
            session.close()


def test_an_answer_is_its_first_row() -> None:
    assert ask(answering(ROW, DONE, READY)) == ["7"]
    assert ask(answering(DONE, READY)) == []


@pytest.mark.parametrize("code", ["25006", "57014", "23505", "42P01", "53100"])
def test_an_error_is_certain(code: str) -> None:
    with pytest.raises(Refused, match="no") as caught:
        ask(answering(error(code), READY))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answers", "stay", "code"),
    [
        ((error("57P01", "FATAL"),), False, "57P01"),
        ((error("57P01", "FATAL"), READY), True, "57P01"),
        ((error("25006"),), False, "25006"),
        ((error("40003"), READY), True, "40003"),
        ((error("XX000"), READY), True, "XX000"),
        ((error("58030"), READY), True, "58030"),
        ((error("25006", "PANIC"), READY), True, "25006"),
        ((), False, "08006"),
        ((ROW, DONE), False, "08006"),
        ((DONE, error("40003"), READY), True, "40003"),
        ((CANCELLED_WAIT, ROW, DONE, READY), True, "01000"),
    ],
)
def test_all_else_is_doubtful(answers: tuple[bytes, ...], stay: bool, code: str) -> None:
    with pytest.raises(Doubtful) as caught:
        ask(answering(*answers, stay=stay))
    assert caught.value.code == code


@pytest.mark.parametrize("answers", [(), (ROW,), (ROW, DONE), (b"T\0\0",)])
def test_silence_ends_by_its_deadline(answers: tuple[bytes, ...]) -> None:
    with pytest.raises(Doubtful, match="no answer in time") as caught:
        ask(answering(*answers), SOON)
    assert caught.value.code == "timeout"


def test_a_connection_that_was_closed_meanwhile_is_noticed_before_anything_is_sent() -> None:
    gone = threading.Event()

    def script(link: socket.socket) -> None:
        startup(link)
        link.sendall(error("57P01", "FATAL"))
        link.shutdown(socket.SHUT_RDWR)
        gone.set()

    with serving(script) as login:
        session = Session("127.0.0.1", login, 10.0)
        assert gone.wait(10)
        with pytest.raises(NotSent):
            session.ask("INSERT", 10.0)
        session.close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotSent) as caught:
        Session("127.0.0.1", Login("postgres", "x", port=port), 10.0)
    assert caught.value.code == "08001"


def test_a_server_that_says_nothing_is_given_up() -> None:
    def listen(link: socket.socket) -> None:
        while link.recv(4096):
            pass

    with serving(listen) as login, pytest.raises(NotSent) as caught:
        Session("127.0.0.1", login, SOON)
    assert caught.value.code == "timeout"


def test_the_end_of_the_program_ends_every_wait() -> None:
    limit = math.inf
    with serving(answering()) as login:
        session = Session("127.0.0.1", login, 10.0, limit=lambda: limit)
        limit = time.monotonic()
        with pytest.raises(Doubtful):
            session.ask("INSERT", math.inf)
        session.close()


@pytest.mark.parametrize("writable", [True, False])
def test_a_standby_is_left_alone_where_a_leader_is_wanted(writable: bool) -> None:
    with serving(lambda link: startup(link, standby=True)) as login:
        if not writable:
            Session("127.0.0.1", login, 10.0).close()
            return
        with pytest.raises(NotSent, match=r"read-only|read-write") as caught:
            Session("127.0.0.1", login, 10.0, writable=True)
    assert isinstance(caught.value, Failed)


def test_settings_are_the_session_s() -> None:
    said: list[bytes] = []

    def script(link: socket.socket) -> None:
        # What comes first asks for TLS.
        link.recv(8, socket.MSG_WAITALL)
        link.sendall(b"N")
        said.append(link.recv(4096))

    with serving(script) as login:
        given = Login("postgres", "x", port=login.port, settings={"synchronous_commit": "local"})
        with pytest.raises(NotSent):
            Session("127.0.0.1", given, 10.0)
    assert b"options\0-c synchronous_commit=local\0" in said[0]
    assert "'x'" not in repr(given)
