"""How a web server is asked: to the same scheme only, and with an end to what comes before a file's first byte."""

from __future__ import annotations

import socket
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from foundry.publish.stores import StoreError

_LONGEST = 3600.0


@contextmanager
def _ended_after(seconds: float | None, link: socket.socket) -> Iterator[None]:
    """Let a connection be waited for within the block for so many seconds in all: its own time is that of one byte.

    Raises TimeoutError.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        # Of the plain socket: TLS's would forget what it is in the middle of.
        with suppress(OSError):
            socket.socket.shutdown(link, socket.SHUT_RDWR)

    timer = threading.Timer(seconds or _LONGEST, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            # To http.client headers that break off are whole.
            raise TimeoutError("status and headers come too slowly")


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        with _ended_after(self.timeout, self.sock):
            return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        with _ended_after(self.timeout, self.sock):
            return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    """Status and headers of an answer have the time that one byte may take, all in all."""

    def init_poolmanager(self, *words: Any, **options: Any) -> None:
        super().init_poolmanager(*words, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *words: Any, **options: Any) -> Any:
        found = super().proxy_manager_for(*words, **options)
        found.pool_classes_by_scheme = _POOLS
        return found


class Session(requests.Session):
    """Follows redirects, but to no other scheme: what was asked for by https does not come by http."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """See requests. Raises StoreError where another scheme is named."""
        found = super().get_redirect_target(resp)
        if found:
            # Its own text need not end, and would be read whole.
            resp.close()
            asked, led = urllib.parse.urlsplit(resp.url), urllib.parse.urlsplit(urllib.parse.urljoin(resp.url, found))
            if led.scheme != asked.scheme:
                raise StoreError(
                    f"{resp.url} leads to {led.geturl()}: another scheme",
                    hint="if you trust that address, use it itself",
                )
        return found
