"""A store as those see it who only read: files of a web server, which may be a static one."""

from __future__ import annotations

import hashlib
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import requests
from urllib3.exceptions import HTTPError

from foundry import files
from foundry.publish import stores
from foundry.publish.stores import UNFINISHED_DAYS, Missing, Options, ReadOnly, StoreError, checked, too_large
from foundry.publish.web_session import Session

_CHUNK = 1 << 20
_TRIES = 4
# A server that sends less in a second, all in all, is taken for one that never ends.
_SLOWEST = 1 << 10
_ABSENT = (404, 410)


class WebStore:
    """The store at an http:// or https:// URL."""

    def __init__(self, url: str, options: Options) -> None:
        self.url = url.rstrip("/")
        self._timeout = (min(20.0, options.timeout), options.timeout)
        self._session = Session()
        # Any other would be compressed on the way, and a part of it would be no part of the file.
        self._session.headers["Accept-Encoding"] = "identity"

    def size(self, path: str) -> int | None:
        """See Store."""
        try:
            return self._head(path)[0]
        except Missing:
            return None

    def read(self, path: str) -> bytes:
        """See Store."""
        with self._explained(checked(path)), self._asked("GET", path) as answer:
            found = bytearray()
            for chunk in self._chunks(answer, path):
                found += chunk
                if len(found) > stores.LARGEST:
                    raise too_large(path, stores.LARGEST, self.url)
            size = answer.headers.get("Content-Length", "")
            if size.isdigit() and len(found) != int(size):
                raise StoreError(
                    f"{self.url}: {path} has {len(found)} bytes and should have {size}", hint="run it again"
                )
            return bytes(found)

    def _chunks(self, answer: requests.Response, path: str) -> Iterator[bytes]:
        """What a server sends, as it comes. Raises StoreError where that is too slow ever to end."""
        begin, got = time.monotonic(), 0
        while chunk := answer.raw.read1(_CHUNK, decode_content=False):
            got += len(chunk)
            yield chunk
            if time.monotonic() - begin > 2 * self._timeout[1] + got / _SLOWEST:
                raise StoreError(f"{self.url}: {path} comes too slowly: {files.human(got)} until now")

    def names(self, folder: str) -> list[str]:
        """Raises StoreError: a web server lists no folders."""
        self._refuse(f"cannot list {checked(folder)}")

    def download(self, path: str, target: Path, limit: int | None = None) -> None:
        """See Store. Goes on with what an interrupted call has written, while the server's file is the same."""
        size, mark = self._head(path)
        if limit is not None and size > limit:
            raise too_large(path, limit, self.url)
        target.parent.mkdir(parents=True, exist_ok=True)
        known = hashlib.sha256(f"{self.url} {path} {size} {mark}".encode()).hexdigest()[:16]
        partial = target.with_name(f".{target.name}.{known}.partial")
        if not mark:
            partial.unlink(missing_ok=True)
        for attempt in range(_TRIES):
            try:
                with self._explained(path):
                    self._fetch(path, partial, size, mark)
                break
            except Missing:
                raise
            except StoreError:
                if attempt + 1 == _TRIES or not partial.exists():
                    raise
                time.sleep(0.2 * attempt)
        partial.replace(target)

    def _fetch(self, path: str, partial: Path, size: int, mark: str) -> None:
        """Make partial as long as size, or raise."""
        have = partial.stat().st_size if partial.exists() else 0
        if have > size:
            have = 0
        if have < size or not size:
            # Range and If-Range: RFC 9110, sections 14.2 and 13.1.5.
            part = {"Range": f"bytes={have}-", "If-Range": mark} if have else {}
            with self._asked("GET", path, part) as answer, partial.open("r+b" if have else "wb") as sink:
                if answer.status_code == 206 and not answer.headers.get("Content-Range", "").startswith(
                    f"bytes {have}-"
                ):
                    raise StoreError(f"{self.url}: {path}: the server sent another part than it was asked for")
                sink.seek(have if answer.status_code == 206 else 0)
                sink.truncate()
                for chunk in self._chunks(answer, path):
                    if sink.tell() + len(chunk) > size:
                        partial.unlink()
                        raise too_large(path, size, self.url)
                    sink.write(chunk)
                have = sink.tell()
        if have != size:
            raise StoreError(f"{self.url}: {path} has {have} bytes and should have {size}", hint="run it again")

    def _head(self, path: str) -> tuple[int, str]:
        """A file's size, and what tells it from an older one: its strong ETag, else its date, else nothing."""
        with self._explained(checked(path)), self._asked("HEAD", path) as answer:
            size = answer.headers.get("Content-Length", "")
            if not size.isdigit():
                raise StoreError(f"{self.url}: the server does not say how large {path} is")
            tag = answer.headers.get("ETag", "")
            return int(size), tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")

    @contextmanager
    def _asked(self, method: str, path: str, headers: dict[str, str] | None = None) -> Iterator[requests.Response]:
        url = f"{self.url}/{urllib.parse.quote(path)}"
        answer = self._session.request(
            method, url, headers=headers, timeout=self._timeout, stream=True, allow_redirects=True
        )
        with answer:
            if answer.status_code in _ABSENT:
                raise Missing(f"{self.url} has no {path}")
            if answer.status_code not in (200, 206):
                raise StoreError(f"{self.url}: {path}: {answer.status_code} {answer.reason}")
            yield answer

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, HTTPError) as error:
            raise StoreError(
                f"{self.url}: {path}: no connection",
                details=str(error),
                hint="is the server up, and reachable from here? Run it again: a download goes on where it stopped",
            ) from error
        except OSError as error:
            raise StoreError(
                f"{path}: {error.strerror or error}", details=error.filename and str(error.filename)
            ) from error

    def upload(self, source: Path, path: str, digest: str) -> int:
        """Raises ReadOnly."""
        self._refuse(f"cannot take {path}")

    def replace(self, path: str, data: bytes) -> None:
        """Raises ReadOnly."""
        self._refuse(f"cannot take {path}")

    def create(self, path: str, data: bytes) -> None:
        """Raises ReadOnly."""
        self._refuse(f"cannot take {path}")

    def remove(self, path: str) -> None:
        """Raises ReadOnly."""
        self._refuse(f"cannot remove {path}")

    def sweep(self, days: float = UNFINISHED_DAYS) -> list[str]:
        """Raises ReadOnly."""
        self._refuse("cannot be swept")

    def close(self) -> None:
        """See Store."""
        self._session.close()

    def _refuse(self, what: str) -> NoReturn:
        raise ReadOnly(
            f"{self.url} {what}: a web server can only be read", hint="publish to the folder, host or bucket behind it"
        )
