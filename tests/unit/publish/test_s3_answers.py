"""A service that speaks S3's language, and never stops."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from foundry.publish.s3 import S3Store
from foundry.publish.stores import Options, StoreError

CHUNK = bytes(1 << 16)
ACTS: dict[str, Callable[[S3Store], object]] = {
    "PUT": lambda store: store.replace("index.asc", b"x"),
    "DELETE": lambda store: store.remove("index.asc"),
    "list": lambda store: store.names("images"),
    "GET": lambda store: store.read("index.asc"),
}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200
    sent = 0

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(type(self).status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            while type(self).sent < 64 << 20:
                self.wfile.write(f"{len(CHUNK):x}\r\n".encode() + CHUNK + b"\r\n")
                type(self).sent += len(CHUNK)

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing of requests."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(_Handler, "sent", 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = S3Store("bucket", "", Options(endpoint=f"http://127.0.0.1:{server.server_port}", region="x"))
        yield found
        found.close()
        server.shutdown()


@pytest.mark.parametrize(("act", "status"), [("PUT", 200), ("DELETE", 200), ("list", 200), ("list", 403), ("GET", 403)])
def test_an_answer_without_end(act: str, status: int, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore took all of it: gigabytes in seconds, as far as there was memory."""
    monkeypatch.setattr(_Handler, "status", status)
    with pytest.raises(StoreError, match="an answer of the service is larger than 4"):
        ACTS[act](store)
    assert _Handler.sent < 32 << 20
