"""A server proves that it knows a password, or is told apart from all that only look like one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from patroni_node import scram

PASSWORD = "kJ8sd7f6Qw3rTy0pLmN2"

# What PostgreSQL 15.18 said to `replicator` with this password and the nonce of bytes 0 to 17, recorded.
NO_TLS = b"N"
OFFER = b"R\x00\x00\x00\x17\x00\x00\x00\nSCRAM-SHA-256\x00\x00"
CHALLENGE = (
    b"R\x00\x00\x00\x5c\x00\x00\x00\x0b"
    b"r=AAECAwQFBgcICQoLDA0ODxARK1RVShZJs2NUQFFLseyGrsnS,s=meiFdcein4kJCHwkeYDNGQ==,i=4096"
)
FINAL = b"R\x00\x00\x006\x00\x00\x00\x0cv=ssp2MNkfwLZkzP7yxd7MTSwdwKnzn6TNChz34ZwiiGQ="
LET_IN = (
    b"R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x15is_superuser\x00off\x00"
    b"K\x00\x00\x00\x0c\x00\x00\x1dDYP\x00\xd1Z\x00\x00\x00\x05I"
)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _asks(number: int, body: bytes) -> bytes:
    return _message(b"R", struct.pack("!i", number) + body)


def _refuses(code: bytes) -> bytes:
    return _message(b"E", b"SFATAL\0C" + code + b"\0Mno\0\0")


@contextlib.contextmanager
def _server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(20)
                    talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
    thread.join(20)


def _says(*answers: bytes) -> Callable[[socket.socket], None]:
    """Return a server that says these one after the other, each when it has been spoken to, and then hangs up."""

    def talk(connection: socket.socket) -> None:
        for answer in answers:
            if not connection.recv(4096):
                return
            connection.sendall(answer)
        while connection.recv(4096):
            pass

    return talk


def _ask(port: int, timeout: float = 20, password: str = PASSWORD) -> bool | None:
    return scram.proves_password("127.0.0.1", port, "replicator", password, timeout)


@pytest.fixture
def _recorded_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda size: bytes(range(size)))


def test_the_exchange_of_rfc_7677() -> None:
    exchange = scram.Exchange("pencil", "n,,", b"", "rOprNGfwEbeRWgbNEkqO", user="user")
    assert exchange.first() == "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    proof = exchange.proof(f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    assert proof == f"c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert exchange.is_proved("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert not exchange.is_proved("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8=")


@pytest.mark.usefixtures("_recorded_nonce")
def test_the_real_server_of_the_recording_proves_it() -> None:
    heard = []

    def talk(connection: socket.socket) -> None:
        for answer in (NO_TLS, OFFER, CHALLENGE, FINAL + LET_IN):
            heard.append(connection.recv(4096))
            connection.sendall(answer)
        heard.append(connection.recv(4096))

    with _server(talk) as port:
        assert _ask(port) is True
    assert heard[0] == bytes.fromhex("00000008 04d2162f")
    assert heard[1] == b"\0\0\0\x2a\0\x03\0\0user\0replicator\0replication\0true\0\0"
    assert heard[2].startswith(b"p") and b"SCRAM-SHA-256\0" in heard[2]
    assert heard[4] == b"X\0\0\0\x04"
    assert PASSWORD.encode() not in b"".join(heard)


@pytest.mark.usefixtures("_recorded_nonce")
def test_who_repeats_what_he_heard_of_another_password_proves_nothing() -> None:
    with _server(_says(NO_TLS, OFFER, CHALLENGE, FINAL + LET_IN)) as port:
        assert _ask(port, password=PASSWORD + "x") is False


def test_who_repeats_an_old_conversation_proves_nothing() -> None:
    with _server(_says(NO_TLS, OFFER, CHALLENGE, FINAL + LET_IN)) as port:
        assert _ask(port) is False


SALT = base64.b64encode(b"0123456789abcdef").decode()


def _challenge(iterations: str, extra: str = "") -> Callable[[socket.socket], None]:
    """Return a server that knows the password, asks for so many iterations and proves it."""

    def talk(connection: socket.socket) -> None:
        for answer in (NO_TLS, OFFER):
            connection.recv(4096)
            connection.sendall(answer)
        first = connection.recv(4096)
        bare = first[first.index(b"n=") :].decode()
        nonce = bare.split(",r=")[1]
        challenge = f"{extra}r={nonce}server,s={SALT},i={iterations}"
        connection.sendall(_asks(11, challenge.encode()))
        last = connection.recv(4096)[5:].decode()
        if not last:
            return
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(SALT), int(iterations))
        message = f"{bare},{challenge},{last.rsplit(',p=', 1)[0]}".encode()
        signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        connection.sendall(_asks(12, b"v=" + base64.b64encode(signature)) + LET_IN)
        connection.recv(4096)

    return talk


@pytest.mark.parametrize("iterations", ["4096", "10000"])
def test_a_server_that_knows_the_password_proves_it(iterations: str) -> None:
    with _server(_challenge(iterations)) as port:
        assert _ask(port) is True


@pytest.mark.parametrize("iterations", ["1", "4095", "1000001", "2147483648", "9" * 400, "-4096", "0", "4096.5", ""])
def test_a_price_of_guessing_that_the_server_sets_is_not_paid(iterations: str) -> None:
    with _server(_challenge(iterations)) as port:
        assert _ask(port) is False


def test_an_extension_that_has_to_be_understood_is_not() -> None:
    with _server(_challenge("4096", "m=x,")) as port:
        assert _ask(port) is False


@pytest.mark.parametrize(
    "answers",
    [
        [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        [b"E"],
        [b"S", b"no TLS at all, but something else"],
        [NO_TLS, _asks(0, b"")],
        [NO_TLS, _asks(3, b"")],
        [NO_TLS, _asks(5, b"salt")],
        [NO_TLS, _asks(10, b"SCRAM-SHA-256-PLUS\0\0")],
        [NO_TLS, _asks(10, b"")],
        [NO_TLS, _message(b"R", b"")],
        [NO_TLS, _message(b"Z", b"I")],
        [NO_TLS, b"R\xff\xff\xff\xff"],
        [NO_TLS, b"R\0\0\0\0"],
        [NO_TLS, b"R\x7f\xff\xff\xff"],
        [NO_TLS, _refuses(b"28P01")],
        [NO_TLS, _refuses(b"28000")],
        [NO_TLS, OFFER, _asks(12, b"v=" + b"A" * 44)],
        [NO_TLS, OFFER, _asks(11, b"\xff\xfe")],
        [NO_TLS, OFFER, _asks(11, b"r=x,s=AAAA,i=4096")],
        [NO_TLS, OFFER, _asks(11, b"e=other-error")],
        [NO_TLS, OFFER, _asks(0, b"")],
    ],
)  # fmt: skip
def test_an_answer_that_proves_nothing(answers: list[bytes]) -> None:
    with _server(_says(*answers)) as port:
        assert _ask(port) is False


def test_who_hangs_up_proves_nothing() -> None:
    with _server(lambda connection: connection.close()) as port:
        assert _ask(port) is False


@pytest.mark.parametrize("code", [b"57P03", b"57P01", b"53300"])
def test_a_server_that_cannot_answer_now_has_not_failed(code: bytes) -> None:
    with _server(_says(NO_TLS, _refuses(code))) as port:
        assert _ask(port) is None


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert _ask(port) is None


def test_who_says_nothing_is_not_waited_for_longer_than_asked() -> None:
    with _server(lambda connection: [*iter(lambda: connection.recv(64), b"")] and None) as port:
        assert _ask(port, timeout=0.2) is None


def test_who_says_a_byte_at_a_time_is_not_waited_for_longer_either() -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(64)
        connection.sendall(NO_TLS + b"R\0\0\x3f\0")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with _server(drip) as port:
        assert _ask(port, timeout=0.5) is None


@pytest.mark.parametrize(
    ("given", "prepared"),
    [("plain", "plain"), ("I\u00adX", "IX"), ("\u2168", "IX"), ("\u00aa", "a"), ("a\u00a0b", "a b")],
)
def test_passwords_are_prepared_as_rfc_4013_says(given: str, prepared: str) -> None:
    assert scram._prepared(given) == prepared.encode()


@pytest.mark.parametrize("given", ["\u0007ü", "\u0627\u0031ü", "\u0221", "\u00ad"])
def test_what_rfc_4013_forbids_is_taken_as_it_is(given: str) -> None:
    assert scram._prepared(given) == given.encode()


@pytest.mark.parametrize("certificate", [b"", b"0", b"0\x82", b"\x30\x03\x30\x01\x00", b"garbage" * 9])
def test_a_certificate_that_is_none_binds_nothing(certificate: bytes) -> None:
    assert scram._end_point(certificate) is None
