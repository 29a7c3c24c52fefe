"""The contract of a store, kept by each backend with a real server: a folder, OpenSSH's sshd, SeaweedFS' S3."""

from __future__ import annotations

import hashlib
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from foundry.errors import CorruptArtifact
from foundry.publish import stores
from foundry.publish.stores import Missing, StoreError, Taken
from tests.pipeline.harness import until
from tests.pipeline.store_places import PART, Place, Publisher, clients_ended, watched

pytestmark = pytest.mark.usefixtures("credentials")

DISK = "images/debian-12/20261124-b1ddda7d/disk.qcow2"
LINE = "log/00000001.json.asc"


def sha256(data: bytes | None) -> str:
    assert data is not None
    return hashlib.sha256(data).hexdigest()


def test_files_come_and_go(place: Place, tmp_path: Path) -> None:
    store = place.open()
    assert store.size("index.asc") is None
    assert store.names("images") == []
    with pytest.raises(Missing):
        store.read("index.asc")
    with pytest.raises(Missing):
        store.download(DISK, tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []

    store.replace("index.asc", b"one")
    store.replace("index.asc", b"two!")
    assert (store.read("index.asc"), store.size("index.asc"), place.now("index.asc")) == (b"two!", 4, b"two!")
    store.replace("apt/pool/libstdc++_1%3a2~rc1+b1_amd64.deb", b"")
    assert store.read("apt/pool/libstdc++_1%3a2~rc1+b1_amd64.deb") == b""
    assert store.names("apt/pool") == ["libstdc++_1%3a2~rc1+b1_amd64.deb"]

    source, digest = place.source(12 << 20)
    assert store.upload(source, DISK, digest) == 12 << 20
    assert store.upload(source, DISK, digest) == 0
    assert sha256(place.now(DISK)) == digest
    store.replace("images/debian-12/other", b"x")
    assert store.names("images/debian-12") == ["20261124-b1ddda7d/", "other"]
    assert store.names("images") == ["debian-12/"]
    assert store.size("images/debian-12") is None
    store.download(DISK, tmp_path / "new" / "disk")
    assert sha256((tmp_path / "new" / "disk").read_bytes()) == digest
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["disk"]

    store.remove(DISK)
    store.remove(DISK)
    if place.kind != "s3":
        assert store.names("images/debian-12") == ["other"]
    # S3 has no folders, but SeaweedFS has, and removes an empty one some minutes later.
    assert store.names("images/debian-12/20261124-b1ddda7d") == []
    assert place.unfinished() == 0


def test_files_that_are_larger_than_they_may_be(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    store.replace("index.asc", bytes(300_000))
    store.download("index.asc", tmp_path / "same", 300_000)
    assert (tmp_path / "same").stat().st_size == 300_000
    with pytest.raises(StoreError, match=r"index\.asc is larger than 300\.0 kB"):
        store.download("index.asc", tmp_path / "less", 299_999)
    monkeypatch.setattr(stores, "LARGEST", 299_999)
    with pytest.raises(StoreError, match=r"index\.asc is larger than 300\.0 kB"):
        store.read("index.asc")
    assert [p.name for p in tmp_path.iterdir()] == ["same"]


def test_paths_that_lead_out(place: Place, tmp_path: Path) -> None:
    store = place.open()
    store.replace("images/in", b"x")
    source, digest = place.source(10)
    for path in ("../out", "/etc/passwd", "images/../../out", "", ".incoming/x", "images//in", "a\\b", "a\nb", "-x"):
        for act in (
            lambda p: store.size(p),
            lambda p: store.read(p),
            lambda p: store.names(p),
            lambda p: store.download(p, tmp_path / "got"),
            lambda p: store.upload(source, p, digest),
            lambda p: store.replace(p, b"x"),
            lambda p: store.create(p, b"x"),
            lambda p: store.remove(p),
        ):
            with pytest.raises(StoreError, match="is no path in a store"):
                act(path)
    assert not (tmp_path / "got").exists()
    assert place.unfinished() == 0


def test_killed_upload_goes_on(place: Place) -> None:
    """What was served stays so, nobody sees half a file, and the second run sends only what is missing."""
    store = place.open()
    store.replace("index.asc", b"the release before")
    source, digest = place.source()
    with watched(place.size_now(DISK)) as seen:
        with Publisher(place, "upload", "one", source=source, path=DISK, digest=digest) as publisher:
            publisher.at(lambda: place.arrived() >= 2 * PART, "something has arrived")
            publisher.kill()
        clients_ended(place)
        assert store.size(DISK) is None
        assert store.read("index.asc") == b"the release before"
        left = place.arrived()
        assert 2 * PART <= left < place.large
        with watched(place.partial) as growing:
            sent = store.upload(source, DISK, digest)
    # It grew, and was not begun anew.
    assert min((size for size in growing if size is not None), default=left) >= left
    assert 0 < sent <= place.large - left
    assert sha256(place.now(DISK)) == digest
    assert seen <= {None, place.large}
    assert None in seen
    assert place.unfinished() == 0


def test_what_was_damaged_is_sent_anew(place: Place) -> None:
    store = place.open()
    source, digest = place.source()
    with Publisher(place, "upload", "one", source=source, path=DISK, digest=digest) as publisher:
        publisher.at(lambda: place.arrived() >= 2 * PART, "something has arrived")
        publisher.kill()
    clients_ended(place)
    place.spoil(source)
    left = place.arrived()
    assert left >= 2 * PART
    with watched(place.size_now(DISK)) as seen:
        sent = store.upload(source, DISK, digest)
    assert sent >= place.large - left + PART
    assert sha256(place.now(DISK)) == digest
    assert seen <= {None, place.large}


@pytest.mark.parametrize("size", [100, 12 << 20])
def test_another_digest_never_appears(place: Place, size: int) -> None:
    store = place.open()
    source, _ = place.source(size)
    with pytest.raises(CorruptArtifact, match=r"disk\.qcow2 changed since its digest was taken"):
        store.upload(source, DISK, "0" * 64)
    assert place.now(DISK) is None
    assert place.unfinished() == 0


def test_nobody_goes_on(place: Place) -> None:
    store = place.open()
    source, digest = place.source()
    with Publisher(place, "upload", "one", source=source, path=DISK, digest=digest) as publisher:
        publisher.at(lambda: place.arrived() >= 2 * PART, "something has arrived")
        publisher.kill()
    clients_ended(place)
    assert store.sweep() == []
    assert place.unfinished() == 1
    assert len(store.sweep(days=0)) == 1
    assert place.unfinished() == 0
    assert store.upload(source, DISK, digest) == place.large


def test_of_several_who_create_one_wins(place: Place) -> None:
    with ExitStack() as stack:
        rivals = [
            stack.enter_context(Publisher(place, "create", f"{n}", go=False, path=LINE, data=f"publisher {n}"))
            for n in range(5)
        ]
        for rival in rivals:
            rival.at(rival.ready.exists, "it is ready")
        rivals[0].start()
        ended = [rival.result() for rival in rivals]
    winners = [n for n, result in enumerate(ended) if "sent" in result]
    assert len(winners) == 1, ended
    assert [result["error"] for n, result in enumerate(ended) if n not in winners] == ["Taken"] * 4, ended
    assert place.now(LINE) == f"publisher {winners[0]}".encode()
    store = place.open()
    with pytest.raises(Taken):
        store.create(LINE, b"late")
    assert place.now(LINE) == f"publisher {winners[0]}".encode()
    assert place.unfinished() == 0
    assert store.names("log") == ["00000001.json.asc"]


def test_two_who_upload_the_same(place: Place) -> None:
    """Both have it there in the end; the file is whole from the moment when it is there."""
    source, digest = place.source()
    with watched(place.size_now(DISK)) as seen, ExitStack() as stack:
        order = {"source": source, "path": DISK, "digest": digest}
        both = [stack.enter_context(Publisher(place, "upload", f"{n}", go=False, **order)) for n in range(2)]
        for each in both:
            each.at(each.ready.exists, "it is ready")
        both[0].start()
        ended = [each.result() for each in both]
    assert all("sent" in result for result in ended), ended
    if place.kind == "local":
        assert sorted(result["sent"] for result in ended) == [0, place.large]
    assert sha256(place.now(DISK)) == digest
    assert seen <= {None, place.large}
    assert place.open().upload(source, DISK, digest) == 0
    assert place.unfinished() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_two_who_upload_the_same_and_one_ends(place: Place, how: signal.Signals) -> None:
    """The other goes on, whether the first one has ended or stands still (in a folder, until it has ended)."""
    source, digest = place.source()
    order = {"source": source, "path": DISK, "digest": digest}
    with Publisher(place, "upload", "one", **order) as one:
        one.at(lambda: place.arrived() >= 2 * PART, "something has arrived")
        one.process.send_signal(signal.SIGSTOP)
        with Publisher(place, "upload", "two", **order) as two:
            two.at(two.ready.exists, "it is ready")
            if how is signal.SIGKILL or place.kind == "local":
                one.kill()
            ended = two.result()
        assert 0 <= ended["sent"] <= place.large, ended
        assert sha256(place.now(DISK)) == digest
        if place.kind == "local":
            assert ended["sent"] < place.large
            assert place.unfinished() == 0
        elif how is signal.SIGSTOP:
            one.process.send_signal(signal.SIGCONT)
            assert "sent" in (late := one.result()), late
            assert sha256(place.now(DISK)) == digest


def test_a_pointer_is_old_or_new(place: Place) -> None:
    store = place.open()
    old, new = b"old" * 1000, b"newer" * 3000
    store.replace("index.asc", old)
    over, seen = threading.Event(), set()

    def read() -> None:
        while not over.is_set():
            seen.add(place.now("index.asc"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(20):
            store.replace("index.asc", old if n % 2 else new)
    finally:
        over.set()
        reader.join()
    assert seen == {old, new}


@pytest.mark.parametrize("place", ["sftp", "s3"], indirect=True)
def test_server_that_goes_away(place: Place) -> None:
    assert place.server
    store = place.open()
    source, digest = place.source()
    caught: list[BaseException] = []

    def publish() -> None:
        try:
            store.upload(source, DISK, digest)
        except StoreError as error:
            caught.append(error)

    publisher = threading.Thread(target=publish)
    publisher.start()
    until(lambda: ((got := place.arrived()) >= 2 * PART, got), "something has arrived", 30)
    place.server.kill()
    try:
        publisher.join(90)
        assert not publisher.is_alive()
    finally:
        place.server.start()
    assert len(caught) == 1
    assert isinstance(caught[0], StoreError) and "run it again" in (caught[0].hint or "")
    left = place.arrived()
    assert place.now(DISK) is None
    sent = store.upload(source, DISK, digest)
    assert 0 < sent <= place.large - left < place.large
    assert sha256(place.now(DISK)) == digest
