"""A crowd at a node's REST API: `python3 crowd.py WHAT`, a JSON object of functions and their arguments."""

from __future__ import annotations

import json
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any

SECONDS = 10.0
_HELD: list[socket.socket] = []
HEAD = "{method} {path} HTTP/1.0\r\nContent-Length: {size}\r\nContent-Type: application/json\r\n\r\n"


def _connected(host: str, pair: Sequence[str]) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pair:
        context.load_cert_chain(*pair)
    return context.wrap_socket(socket.create_connection((host, 8008), SECONDS))


def pour(host: str, method: str, path: str, size: int, pair: Sequence[str] = ()) -> dict[str, Any]:
    """Send a body of so many bytes; returns how many were taken, and the answer's first line.

    pair: files of a certificate and its key, or none.
    """
    sent, block = 0, b" " * (1 << 20)
    with _connected(host, pair) as wire:
        wire.sendall(HEAD.format(method=method, path=path, size=size).encode())
        try:
            while sent < size:
                wire.sendall(block)
                sent += len(block)
        except OSError:
            pass
        try:
            line = wire.recv(100).split(b"\r\n")[0].decode()
        except OSError as error:
            line = type(error).__name__
    return {"sent": sent, "answer": line}


def stand(host: str, count: int, most: int) -> dict[str, int]:
    """Connect so many times, one after another, and say nothing until this process ends.

    Returns how many connections were made, and how many are open once no more than most are, or it has not come so far.
    """
    poll, made = select.poll(), 0
    for _ in range(count):
        wire = socket.socket()
        wire.settimeout(SECONDS)
        if wire.connect_ex((host, 8008)) == 0:
            made += 1
            poll.register(wire, select.POLLIN)
            _HELD.append(wire)
    # Who is sent away hears of it.
    deadline = time.monotonic() + SECONDS
    while (left := made - len(poll.poll(100))) > most and time.monotonic() < deadline:
        pass
    return {"made": made, "open": left}


if __name__ == "__main__":
    _named = {tool.__name__: tool for tool in (pour, stand)}
    _asked = json.loads(sys.argv[1])
    print(json.dumps({name: _named[name](**options) for name, options in _asked.items()}), flush=True)
    if _HELD:
        signal.pause()
