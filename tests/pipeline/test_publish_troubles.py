"""Stores in trouble: full disks, refused credentials, silent servers, services that promise too little; and nginx."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import files
from foundry.publish.sftp import SftpStore
from foundry.publish.stores import INCOMING, Missing, Options, ReadOnly, Store, StoreError, open_store
from tests.pipeline import mirrors, store_servers
from tests.pipeline.harness import ROOT, until
from tests.pipeline.store_places import Place, Publisher
from tests.pipeline.store_servers import BUCKET, Programs, Server, Sshd

pytestmark = pytest.mark.usefixtures("credentials")

DISK = "images/debian-12/20261124-b1ddda7d/disk.qcow2"
SMALL = 6 << 20


def source(folder: Path, size: int) -> tuple[Path, str]:
    path = folder / "disk.qcow2"
    path.write_bytes(os.urandom(size))
    return path, files.sha256(path)


def refused(store: Store) -> StoreError:
    """How a store refuses to say how large a file is."""
    with pytest.raises(StoreError) as caught:
        store.size("index.asc")
    store.close()
    assert not isinstance(caught.value, Missing)
    return caught.value


# full disks


@pytest.fixture(params=["local", "sftp"])
def full(request: pytest.FixtureRequest, playground: Path, tmp_path: Path) -> Iterator[tuple[Store, Path]]:
    """A store where 6 MiB have room, and its folder."""
    if request.param == "local":
        folder = playground / "small"
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", str(folder)], check=True)
        store = open_store(str(folder))
    else:
        server: Sshd = request.getfixturevalue("sshd")
        # As sshd sees it: what it has mounted is in a namespace of its own.
        folder = server.jail / "small"
        options = Options(timeout=20, ssh_config=server.config, scratch=tmp_path)
        store = open_store(f"sftp://publisher@127.0.0.1:{server.port}/small", options)
    yield store, folder
    store.close()
    if request.param == "local":
        subprocess.run(["umount", str(folder)], check=True)


def test_file_for_which_there_is_no_room(full: tuple[Store, Path], tmp_path: Path) -> None:
    store, folder = full
    store.replace("index.asc", b"the release before")
    path, digest = source(tmp_path, SMALL + 1)
    with pytest.raises(StoreError, match=r"is full: it has [56]\.\d MB free and needs 6\.3 MB"):
        store.upload(path, DISK, digest)
    assert store.read("index.asc") == b"the release before"
    assert not (folder / DISK).exists()
    store.sweep(0)


def test_disk_that_fills_up_meanwhile(
    full: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody else writes, too: there was room when it was asked for."""
    store, folder = full
    store.replace("index.asc", b"the release before")
    path, digest = source(tmp_path, SMALL + 1)
    if isinstance(store, SftpStore):
        really, asked = store._free, iter([None])
        monkeypatch.setattr(store, "_free", lambda: next(asked, really()))
    else:
        really_local = shutil.disk_usage(folder)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: really_local._replace(free=1 << 40))
    with pytest.raises(StoreError, match="is full"):
        store.upload(path, DISK, digest)
    monkeypatch.undo()
    assert not (folder / DISK).exists()
    assert sum(p.stat().st_size for p in (folder / INCOMING).iterdir()) == 0
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free))
    with pytest.raises(StoreError, match="is full"):
        store.replace("index.asc", b"x" * 100_000)
    assert store.read("index.asc") == b"the release before"
    (folder / "filler").unlink()
    store.replace("index.asc", b"the next release")
    assert store.read("index.asc") == b"the next release"
    store.sweep(0)


# SFTP


def test_host_that_is_not_known(sshd: Sshd, tmp_path: Path) -> None:
    text = sshd.config.read_text(encoding="utf-8")
    (tmp_path / "config").write_text(re.sub("UserKnownHostsFile.*", "UserKnownHostsFile /dev/null", text))
    options = Options(timeout=20, ssh_config=tmp_path / "config")
    error = refused(open_store(f"sftp://publisher@127.0.0.1:{sshd.port}/store", options))
    assert "Host key verification failed" in (error.details or "")
    assert "ssh-keyscan 127.0.0.1" in (error.hint or "")


def test_key_that_the_server_does_not_know(sshd: Sshd, tmp_path: Path) -> None:
    text = sshd.config.read_text(encoding="utf-8")
    (tmp_path / "config").write_text(text.replace('/user"', '/stranger"'))
    options = Options(timeout=20, ssh_config=tmp_path / "config")
    error = refused(open_store(f"sftp://publisher@127.0.0.1:{sshd.port}/store", options))
    assert "Permission denied (publickey)" in (error.details or "")
    assert "ssh-add" in (error.hint or "")


def test_folder_that_is_not_there(sshd: Sshd) -> None:
    options = Options(timeout=20, ssh_config=sshd.config)
    error = refused(open_store(f"sftp://publisher@127.0.0.1:{sshd.port}/nowhere", options))
    assert "no such folder" in error.brief


def test_folder_that_is_somebody_else_s(sshd: Sshd) -> None:
    store = open_store(f"sftp://publisher@127.0.0.1:{sshd.port}/", Options(timeout=20, ssh_config=sshd.config))
    with pytest.raises(StoreError, match="refused") as caught:
        store.replace("index.asc", b"x")
    store.close()
    assert "Permission denied" in (caught.value.details or "")


def test_folder_of_an_account_with_a_shell(sshd: Sshd) -> None:
    (sshd.home / "a folder").mkdir()
    options = Options(timeout=20, ssh_config=sshd.config)
    store = open_store(f"sftp://plain@127.0.0.1:{sshd.port}/~/a%20folder", options)
    store.replace("log/1", b"x")
    store.close()
    assert (sshd.home / "a folder/log/1").read_bytes() == b"x"


def test_server_that_stands_still(sshd: Sshd, tmp_path: Path) -> None:
    path, digest = source(tmp_path, 100 << 20)
    options = Options(timeout=4, ssh_config=sshd.config, scratch=tmp_path)
    store = open_store(f"sftp://publisher@127.0.0.1:{sshd.port}/store", options)
    caught: list[StoreError] = []

    def publish() -> None:
        try:
            store.upload(path, "still/disk.qcow2", digest)
        except StoreError as error:
            caught.append(error)

    incoming = sshd.jail / "store" / INCOMING
    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        until(lambda: (any(incoming.glob(f"{digest}.*")), "nothing"), "an upload", 30)
        sshd.server.freeze(signal.SIGSTOP)
        publisher.join(60)
        assert not publisher.is_alive()
    finally:
        sshd.server.freeze(signal.SIGCONT)
    assert [error.brief for error in caught] == [f"{store.url}: no connection"]
    assert 0 < store.upload(path, "still/disk.qcow2", digest) <= 100 << 20
    assert files.sha256(sshd.jail / "store/still/disk.qcow2") == digest
    store.close()


# S3


def test_secret_that_is_wrong(seaweed: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    store = open_store(f"s3://{BUCKET}", Options(endpoint=seaweed[1], region="us-east-1", timeout=10))
    assert "docs/stores.md" in (refused(store).hint or "")
    with pytest.raises(StoreError, match="refused: SignatureDoesNotMatch"):
        store.create("log/1", b"x")
    store.close()


def test_no_credentials(seaweed: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    error = refused(open_store(f"s3://{BUCKET}", Options(endpoint=seaweed[1], region="us-east-1", timeout=10)))
    assert "no credentials" in error.brief
    assert "AWS_ACCESS_KEY_ID" in (error.hint or "")


def test_no_bucket(seaweed: tuple[Server, str]) -> None:
    store = open_store("s3://nobodys", Options(endpoint=seaweed[1], region="us-east-1", timeout=10))
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        store.replace("index.asc", b"x")
    store.close()
    assert "make the bucket" in (caught.value.hint or "")


def test_how_long_others_may_keep_a_file(seaweed: tuple[Server, str]) -> None:
    store = open_store(f"s3://{BUCKET}/kept", Options(endpoint=seaweed[1], region="us-east-1", timeout=10))
    store.replace("index.html", b"x")
    store.create("log/1.asc", b"x")
    store.close()
    s3 = store_servers.client(seaweed[1])
    heads = [s3.head_object(Bucket=BUCKET, Key=f"kept/{k}") for k in ("index.html", "log/1.asc")]  # type: ignore[attr-defined]
    assert [h["CacheControl"] for h in heads] == ["no-cache", "public, max-age=31536000, immutable"]
    assert heads[0]["ContentType"] == "text/html; charset=utf-8"


def test_service_that_ignores_conditions(servers: Programs, tmp_path: Path) -> None:
    """It would let several publishers believe that each of them was first."""
    with store_servers.rclone(servers, tmp_path / "rclone") as endpoint:
        options = Options(endpoint=endpoint, region="us-east-1", timeout=10)
        store = open_store(f"s3://{BUCKET}", options)
        store.replace("index.asc", b"x")
        with pytest.raises(StoreError, match="does not honour If-None-Match") as caught:
            store.create("log/1", b"x")
        store.close()
    assert "4 were told that they did; one after them was told so, too" in (caught.value.details or "")
    data = tmp_path / "rclone/data" / BUCKET
    assert [str(p.relative_to(data)) for p in data.rglob("*") if p.is_file()] == ["index.asc"]


# all of them


@pytest.mark.parametrize("kind", ["sftp", "s3", "http"])
@pytest.mark.parametrize("trouble", ["silent", "nobody"])
def test_server_that_does_not_answer(kind: str, trouble: str) -> None:
    with mirrors.silent() as silent:
        address = silent if trouble == "silent" else "http://127.0.0.1:9"
        port = address.rpartition(":")[2]
        url = {"sftp": f"sftp://x@127.0.0.1:{port}/store", "s3": "s3://bucket", "http": address}[kind]
        error = refused(open_store(url, Options(endpoint=address, region="us-east-1", timeout=2)))
    assert "no connection" in error.brief
    assert "is the server up" in (error.hint or "") or "is the service up" in (error.hint or "")


# what a web server shows


def nginx_block() -> str:
    text = (ROOT / "docs/stores.md").read_text(encoding="utf-8")
    found = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_nginx_as_the_documentation_has_it(servers: Programs, playground: Path, tmp_path: Path) -> None:
    root = playground / "served"
    local = open_store(str(root))
    path, digest = source(tmp_path, 30 << 20)
    local.upload(path, DISK, digest)
    local.replace("index.asc", b"index")
    local.replace("apt/pool/libstdc++6_1%3a2~rc1+b1_amd64.deb", b"deb")
    (root / INCOMING / "secret").write_bytes(b"secret")
    with store_servers.nginx(servers, tmp_path / "nginx", root, nginx_block()) as url:
        store = open_store(url, Options(timeout=10))
        assert store.read("index.asc") == b"index"
        assert store.read("apt/pool/libstdc++6_1%3a2~rc1+b1_amd64.deb") == b"deb"
        assert (store.size(DISK), store.size("nothing"), store.size("index.asc")) == (30 << 20, None, 5)
        with pytest.raises(Missing):
            store.read("nothing")
        with pytest.raises(ReadOnly):
            store.names("images")
        with pytest.raises(ReadOnly):
            store.upload(path, "other", digest)
        assert store._session.get(f"{url}/{INCOMING}/secret", timeout=5).status_code == 404  # type: ignore[attr-defined]
        cached = [store._session.head(f"{url}/{p}", timeout=5).headers["Cache-Control"] for p in ("index.asc", DISK)]  # type: ignore[attr-defined]
        assert cached == ["no-cache", "public, max-age=31536000, immutable"]
        store.close()

        target = tmp_path / "got/disk.qcow2"
        place = Place("web", url, Options(timeout=10), tmp_path, 30 << 20)
        with Publisher(place, "download", "one", path=DISK, target=target) as reader:
            reader.at(lambda: any(p.stat().st_size for p in target.parent.glob(".*.partial")), "some of it")
            reader.kill()
        assert not target.exists()
        (partial,) = target.parent.iterdir()
        begun = partial.stat()
        assert 0 < begun.st_size < 30 << 20
        store.download(DISK, target)
        store.close()
    assert files.sha256(target) == digest
    # The same file, gone on with.
    assert (target.stat().st_ino, list(target.parent.iterdir())) == (begun.st_ino, [target])
