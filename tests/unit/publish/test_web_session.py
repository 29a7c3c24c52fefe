"""A web server whose answer has no end before the first byte of a file, or beside it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from foundry.publish.stores import Options, StoreError
from foundry.publish.web import WebStore

MOST = 64 << 20
OVER = threading.Event()
"""What a server waits for that sends a little now and then; never set."""


@contextmanager
def served(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """The URL of a server that answers so, and how many bytes it got rid of; it ends when nobody listens any more."""
    sent: list[int] = []

    class Counted:
        def __init__(self, link: socket.socket) -> None:
            self.link = link

        def sendall(self, data: bytes) -> None:
            self.link.sendall(data)
            sent.append(len(data))

    def accept() -> None:
        with suppress(OSError):
            while True:
                link, _ = server.accept()
                with link, suppress(OSError):
                    link.recv(4096)
                    answer(Counted(link))  # type: ignore[arg-type]

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", sent
        # What waits in accept() does not notice that its socket is closed.
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not thread.is_alive()


def drip(link: socket.socket) -> None:
    """A header, byte by byte, each in good time."""
    link.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not OVER.wait(0.05):
        link.sendall(b"x")


def go_on(link: socket.socket) -> None:
    """RFC 9110, section 15.2.1: any number of these may come before the answer."""
    while not OVER.wait(0.01):
        link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("answer", [drip, go_on])
@pytest.mark.parametrize("ask", [WebStore.size, WebStore.read])
def test_headers_that_do_not_end(
    answer: Callable[[socket.socket], None], ask: Callable[[WebStore, str], object]
) -> None:
    with served(answer) as (url, _):
        store = WebStore(url, Options(timeout=0.5))
        with pytest.raises(StoreError, match="no connection"):
            ask(store, "index.asc")
        store.close()


@pytest.mark.parametrize("kind", ["chunked", "until it closes", "long"])
@pytest.mark.parametrize("status", ["302 Found", "308 Permanent Redirect"])
def test_a_redirect_with_a_text_that_does_not_end(kind: str, status: str) -> None:
    more = {"chunked": "Transfer-Encoding: chunked\r\n", "until it closes": "", "long": f"Content-Length: {MOST}\r\n"}

    def lead(link: socket.socket) -> None:
        head = f"HTTP/1.1 {status}\r\nLocation: /elsewhere\r\n{more[kind]}\r\n"
        link.sendall(head.encode())
        block = bytes(1 << 16)
        for _ in range(MOST >> 16):
            link.sendall(b"10000\r\n" + block + b"\r\n" if kind == "chunked" else block)

    with served(lead) as (url, sent):
        store = WebStore(url, Options(timeout=2))
        with pytest.raises(StoreError, match="no connection"):
            store.read("index.asc")
        store.close()
    # Thirty redirects, and no more of each than the two sockets hold.
    assert 30 <= sum(n < 1000 for n in sent) <= 31
    assert sum(sent) < MOST * 3
