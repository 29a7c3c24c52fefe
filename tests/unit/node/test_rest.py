"""Questions over HTTP end with an answer or with a few words, whoever is on the other side."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from conftest import DATA

from patroni_node import neighbours, rest
from patroni_node.rest import Answer, Question, Trust


@contextmanager
def server(answer: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Says the same to whoever connects; the address of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                # Who does not trust it goes away.
                with closing(connection), suppress(ssl.SSLError, ConnectionError):
                    way = tls.wrap_socket(connection, server_side=True) if tls else connection
                    with closing(way):
                        way.recv(4096)
                        way.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def http(code: str, body: str) -> bytes:
    return f"HTTP/1.0 {code}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (http("200 OK", '{"a": 1}'), Answer(200, {"a": 1})),
        (http("200 OK", ""), Answer(200)),
        (http("503 Unavailable", '{"state": "starting"}'), Answer(503, {"state": "starting"})),
        (http("403 Forbidden", "no \xff"), Answer(403)),
        (http("200 OK", "[" * 500_000), Answer(200)),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Answer(failure="BadStatusLine")),
        (b"", Answer(failure="RemoteDisconnected")),
    ],
)
def test_answers(said: bytes, answer: Answer) -> None:
    with server(said) as host:
        assert rest.ask(Question(f"http://{host}/x")) == answer
        fetched = neighbours.fetch(f"http://{host}/x", None)
    assert fetched == (answer.body if answer.code == 200 else None)


def test_nobody_is_followed_elsewhere() -> None:
    """A token would go there as well, from https to http too."""
    with server(http("200 OK", '{"a": 1}')) as other:
        led = f"HTTP/1.0 302 Found\r\nLocation: http://{other}/x\r\n\r\n".encode()
        with server(led) as host:
            assert rest.ask(Question(f"http://{host}/x", headers={"X-Consul-Token": "t"})) == Answer(302)


def test_a_peer_that_never_ends_its_answer_keeps_no_node_from_starting() -> None:
    """Each byte came in time; the unit's own limit then ended the whole, at each boot."""
    enough, over = threading.Event(), threading.Event()

    def drip(listener: socket.socket) -> None:
        with closing(listener.accept()[0]) as connection:
            connection.sendall(b"HTTP/1.0 200 OK\r\nX: ")
            for _ in range(100):
                connection.sendall(b"x")
                if enough.wait(0.2):
                    return
            over.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            assert neighbours.fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/cluster", None) is None
            assert not over.is_set()
        finally:
            enough.set()
            thread.join()


def test_tls_that_is_none() -> None:
    with server(http("200 OK", "{}")) as host:
        assert rest.ask(Question(f"https://{host}/", Trust(ca=(DATA / "ca.pem").read_text()))).failure.startswith(
            "TLS "
        )


OWN = {"certificate": str(DATA / "node.pem"), "key": str(DATA / "node.key")}
CA, OTHER_CA = ((DATA / name).read_text() for name in ("ca.pem", "ca-other.pem"))


@pytest.mark.parametrize(
    ("trust", "says"),
    [
        (Trust(verify=False, **OWN), ""),
        (Trust(ca_file=str(DATA / "ca-other.pem"), verify=False, **OWN), ""),
        # Its authority is believed, and then the name is looked at.
        (Trust(ca=CA, **OWN), "mismatch"),
        (Trust(ca_file=str(DATA / "ca.pem"), **OWN), "mismatch"),
        (Trust(ca=OTHER_CA, **OWN), "self-signed"),
        (None, "self-signed"),
        # Refused after its own part of the handshake, it may hear of that or of the end alone.
        (Trust(verify=False), "."),
    ],
)
def test_who_is_believed_and_who_is_shown_a_certificate(trust: Trust | None, says: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(DATA / "ca.pem"))
    context.load_cert_chain(DATA / "node.pem", DATA / "node.key")
    context.verify_mode = ssl.CERT_REQUIRED
    with server(http("200 OK", '{"a": 1}'), context) as host:
        answer = rest.ask(Question(f"https://{host}/x", trust))
    assert re.search(says, answer.failure)
    assert answer.body == (None if says else {"a": 1})


def test_nobody_and_nonsense() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert rest.ask(Question(f"http://127.0.0.1:{port}/")).failure == "connection refused"
    assert "/nowhere/ca.pem" not in rest.ask(Question("https://127.0.0.1:1/", Trust(ca="no certificate"))).failure
    assert rest.ask(Question("https://127.0.0.1:1/", Trust(ca_file="/nowhere/ca.pem"))).failure
    assert rest.ask(Question("http://127.0.0.1:port/")).failure == "InvalidURL"


def test_headers_are_not_in_the_repr() -> None:
    assert "secret" not in repr(Question("http://a", headers={"X-Consul-Token": "secret"}))
