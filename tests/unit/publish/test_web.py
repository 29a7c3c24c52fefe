"""Downloads from web servers that break off, change their files, or lead elsewhere."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from foundry.publish import stores
from foundry.publish.stores import Missing, Options, ReadOnly, StoreError
from foundry.publish.web import WebStore

DATA = bytes(range(256)) * 400


class Site(http.server.ThreadingHTTPServer):
    """A server of one file, whose behaviour a test sets."""

    data = DATA
    tag: str | None = '"one"'
    breaks_after: int | None = None
    ranges = True
    location: str | None = None
    length = True
    # Seconds between the blocks that a GET is answered with, without end.
    endless: float | None = None
    block = bytes(1 << 16)
    written = 0
    headers: dict[str, str]
    asked: list[tuple[str, str | None]]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        site, wanted = self.server, self.headers["Range"]
        site.asked.append((self.command, wanted))
        if site.location:
            self.send_response(302)
            self.send_header("Location", site.location)
            self.end_headers()
            return
        if self.path != "/pool/a%2Bb%253a":
            self.send_error(404)
            return
        same = self.headers["If-Range"] == site.tag
        start = int(wanted[6:-1]) if wanted and site.ranges and same else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.data) - 1}/{len(site.data)}")
        if site.tag:
            self.send_header("ETag", site.tag)
        if site.length and not (body and site.endless is not None):
            self.send_header("Content-Length", str(len(site.data) - start))
        for name, value in site.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body and site.endless is not None:
            over = threading.Event()
            with suppress(OSError):
                while not over.wait(site.endless):
                    self.wfile.write(site.block)
                    self.wfile.flush()
                    site.written += len(site.block)
        elif body:
            end = len(site.data) if site.breaks_after is None else start + site.breaks_after
            self.wfile.write(site.data[start:end])

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(("127.0.0.1", 0), _Handler) as server:
        server.asked, server.headers = [], {}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebStore]:
    monkeypatch.setattr("time.sleep", lambda _: None)
    found = WebStore(f"http://127.0.0.1:{site.server_port}/", Options(timeout=5))
    yield found
    found.close()


PATH = "pool/a+b%3a"


def test_files_are_read_as_they_are(site: Site, store: WebStore, tmp_path: Path) -> None:
    # As servers say of a .gz: what is stored is wanted, not what is in it.
    site.headers["Content-Encoding"] = "gzip"
    assert store.size(PATH) == len(DATA)
    assert store.read(PATH) == DATA
    store.download(PATH, tmp_path / "new/file")
    assert (tmp_path / "new/file").read_bytes() == DATA
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file"]


def test_what_is_not_there(store: WebStore, tmp_path: Path) -> None:
    assert store.size("nothing") is None
    for act in (lambda: store.read("nothing"), lambda: store.download("nothing", tmp_path / "x")):
        with pytest.raises(Missing):
            act()
    assert list(tmp_path.iterdir()) == []


def test_download_that_breaks_goes_on(site: Site, store: WebStore, tmp_path: Path) -> None:
    site.breaks_after = 30_000
    store.download(PATH, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    ranges = [wanted for method, wanted in site.asked if method == "GET"]
    assert ranges == [None, "bytes=30000-", "bytes=60000-", "bytes=90000-"]


def test_download_that_was_given_up_goes_on_in_the_next_run(site: Site, store: WebStore, tmp_path: Path) -> None:
    site.breaks_after = 10_000
    with pytest.raises(StoreError, match=r"no connection|and should have"):
        store.download(PATH, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    site.breaks_after = None
    site.asked.clear()
    WebStore(store.url, Options(timeout=5)).download(PATH, tmp_path / "file")
    assert site.asked == [("HEAD", None), ("GET", "bytes=40000-")]
    assert (tmp_path / "file").read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("change", ["file", "ranges", "no tag"])
def test_what_cannot_go_on_begins_anew(site: Site, store: WebStore, tmp_path: Path, change: str) -> None:
    if change == "no tag":
        site.tag = None
    site.breaks_after = 10_000
    with pytest.raises(StoreError):
        store.download(PATH, tmp_path / "file")
    site.breaks_after = None
    if change == "file":
        site.tag, site.data = '"two"', bytes(reversed(DATA))
    site.ranges = change != "ranges"
    store.download(PATH, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == site.data


def test_answer_that_is_too_short_is_no_file(site: Site, store: WebStore, tmp_path: Path) -> None:
    site.breaks_after = 0
    with pytest.raises(StoreError):
        store.download(PATH, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    with pytest.raises(StoreError):
        store.read(PATH)


@pytest.mark.parametrize("target", ["https://127.0.0.1:1/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_to_another_scheme(site: Site, store: WebStore, tmp_path: Path, target: str) -> None:
    site.location = target
    for act in (lambda: store.size(PATH), lambda: store.read(PATH), lambda: store.download(PATH, tmp_path / "x")):
        with pytest.raises(StoreError, match="another scheme"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_redirects_within_the_scheme(site: Site, store: WebStore) -> None:
    with Site(("127.0.0.1", 0), _Handler) as other:
        other.asked, other.headers, other.location = [], {}, f"http://127.0.0.1:{site.server_port}/pool/a%2Bb%253a"
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        led = WebStore(f"http://127.0.0.1:{other.server_port}", Options(timeout=5))
        assert led.read(PATH) == DATA
        led.close()
        other.shutdown()
        thread.join()


def test_file_that_should_be_small(site: Site, store: WebStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LARGEST", 1000)
    with pytest.raises(StoreError, match=r"is larger than 1\.0 kB"):
        store.read(PATH)


def test_download_that_is_larger_than_it_may_be(site: Site, store: WebStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is larger than 102\.4 kB, and should not be"):
        store.download(PATH, tmp_path / "file", len(DATA) - 1)
    assert site.asked == [("HEAD", None)]
    store.download(PATH, tmp_path / "file", len(DATA))
    assert (tmp_path / "file").read_bytes() == DATA


def test_server_that_never_ends(site: Site, store: WebStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has said another length, and goes on: nothing of it stays, and no more is written than was said."""
    site.endless = 0
    largest: list[int] = []
    real = Path.open

    def watched(self: Path, *args: Any, **options: Any) -> Any:
        largest.extend(p.stat().st_size for p in tmp_path.iterdir())
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", watched)
    with pytest.raises(StoreError, match=r"is larger than 102\.4 kB, and should not be"):
        store.download(PATH, tmp_path / "file", len(DATA))
    assert max(largest, default=0) <= len(DATA)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(stores, "LARGEST", 1 << 20)
    with pytest.raises(StoreError, match=r"is larger than 1\.0 MB"):
        store.read(PATH)


def test_server_that_sends_too_slowly_ever_to_end(site: Site, tmp_path: Path) -> None:
    """A byte now and then, so that no socket waits for long."""
    site.endless, site.block = 0.02, b"x"
    store = WebStore(f"http://127.0.0.1:{site.server_port}/", Options(timeout=0.3))
    with pytest.raises(StoreError, match="comes too slowly"):
        store.read(PATH)
    site.data = bytes(10 << 20)
    with pytest.raises(StoreError, match="comes too slowly"):
        store.download(PATH, tmp_path / "file")
    store.close()


def test_server_that_does_not_say_how_large(site: Site, store: WebStore) -> None:
    site.length = False
    with pytest.raises(StoreError, match="does not say how large"):
        store.size(PATH)


def test_nothing_is_written(store: WebStore, tmp_path: Path) -> None:
    for act in (
        lambda: store.names("images"),
        lambda: store.upload(tmp_path, "a", ""),
        lambda: store.replace("a", b""),
        lambda: store.create("a", b""),
        lambda: store.remove("a"),
        lambda: store.sweep(),
    ):
        with pytest.raises(ReadOnly, match="can only be read"):
            act()
