"""Which paths and URLs a store takes."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry.errors import ConfigError
from foundry.publish.local import LocalStore
from foundry.publish.s3 import S3Store
from foundry.publish.sftp import SftpStore
from foundry.publish.stores import Options, StoreError, checked, open_store
from foundry.publish.web import WebStore

GOOD = (
    "index.asc",
    "log/00000001.json.asc",
    "images/debian-12/20261124-b1ddda7d/debian-12-20261124-b1ddda7d.qcow2",
    "apt/pool/main/g/gcc-12/libstdc++6_1%3a12.2.0-14+deb12u1~bpo1_amd64.deb",
    "streams/v1/com.example:foundry.sjson",
)
BAD = (
    "",
    "/",
    "/etc/passwd",
    "..",
    ".",
    "../x",
    "a/../b",
    "a/..",
    "a/./b",
    "a//b",
    "a/",
    ".incoming/x",
    "a/.b",
    "-rf",
    "a/-b",
    "~/x",
    "a\\b",
    "..\\x",
    "a\x00b",
    "a\nb",
    "a\n",
    "a\x7f",
    "a b",
    "a*",
    "é",
    "a\u202eb",
    "a" * 201,
    "/".join(["a" * 100] * 8),
)
PIECES = st.sampled_from(["..", ".", "/", "\\", "a", "b.c", "\n", "\x00", "~", "-", "é", " ", "%2e%2e", ".incoming"])


@pytest.mark.parametrize("path", GOOD)
def test_paths_of_a_store(path: str) -> None:
    assert checked(path) == path


@pytest.mark.parametrize("path", BAD)
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(StoreError, match="is no path in a store"):
        checked(path)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=8).map("".join)))
def test_what_is_accepted_stays_below_the_root(path: str) -> None:
    try:
        checked(path)
    except StoreError:
        return
    joined = posixpath.join("/root", path)
    assert posixpath.normpath(joined) == joined
    assert joined.startswith("/root/")
    assert path.isascii() and path.isprintable()
    assert not any(part.startswith((".", "-", "~")) for part in path.split("/"))


def test_each_url_opens_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = {
        "store": (LocalStore, tmp_path.as_uri() + "/store"),
        "/srv/foundry": (LocalStore, "file:///srv/foundry"),
        "file:///srv/a%20b": (LocalStore, "file:///srv/a%20b"),
        "file://localhost/srv/x": (LocalStore, "file:///srv/x"),
        "sftp://foundry@host:2222/srv/x/": (SftpStore, "sftp://foundry@host:2222/srv/x"),
        "SFTP://host/~/x": (SftpStore, "sftp://host/~/x"),
        "s3://bucket": (S3Store, "s3://bucket"),
        "s3://bucket/pre/fix/": (S3Store, "s3://bucket/pre/fix"),
        "https://host/x/": (WebStore, "https://host/x"),
        "http://host": (WebStore, "http://host"),
    }
    for url, (kind, name) in expected.items():
        store = open_store(url, Options())
        assert (type(store), store.url) == (kind, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/x",
        "gopher://x",
        "://x",
        "file://host/x",
        "file://",
        "file:///x?y",
        "sftp://host",
        "sftp:///x",
        "sftp://-oProxyCommand=x/y",
        "sftp://-l@host/y",
        "sftp://host:0x/y",
        "sftp://host:99999/y",
        'sftp://host/"; !sh "',
        "sftp://host/a%0Ab",
        "sftp://host/a*",
        "s3://",
        "s3://Bucket",
        "s3://b",
        "s3://bucket/../x",
        "s3://bucket/.incoming",
        "https://",
        "https://host/x?token=y",
        "https://[::1/x",
        "/srv/a\nb",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        open_store(url)
    assert "sftp://[user@]host[:port]/path" in (caught.value.hint or "")


@pytest.mark.parametrize("url", ["sftp://u:secret@host/x", "https://u:secret@host/x", "s3://u:secret@bucket"])
def test_passwords_in_urls_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="has a password in it") as caught:
        open_store(url)
    assert "secret" not in f"{caught.value.brief}{caught.value.hint}"
