"""A store on each kind of server, as the tests see it: through the product, and behind its back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from foundry.publish.stores import INCOMING, Options, Store, open_store
from tests.pipeline.harness import ROOT, processes_of, until
from tests.pipeline.store_servers import BUCKET, KEY, SECRET, Server, client, descendants

PART = 5 << 20
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Place:
    """An empty store. root: its folder on this host's disk, for those that have one. server: what may be killed."""

    kind: str
    url: str
    options: Options
    folder: Path
    large: int
    root: Path | None = None
    server: Server | None = None
    opened: list[Store] = field(default_factory=list)

    def open(self) -> Store:
        """One more publisher; closed with the test."""
        self.opened.append(open_store(self.url, self.options))
        return self.opened[-1]

    def source(self, size: int | None = None, name: str = "disk.qcow2") -> tuple[Path, str]:
        """A file to publish, large by default, and its digest."""
        path = self.folder / name
        data = os.urandom(size if size is not None else self.large)
        path.write_bytes(data)
        return path, hashlib.sha256(data).hexdigest()

    @property
    def s3(self) -> Any:
        return client(self.options.endpoint)

    @property
    def prefix(self) -> str:
        return self.url.removeprefix(f"s3://{BUCKET}/")

    def now(self, path: str) -> bytes | None:
        """What somebody sees who reads a file at this moment."""
        if self.root:
            try:
                return (self.root / path).read_bytes()
            except FileNotFoundError:
                return None
        s3 = self.s3
        try:
            return bytes(s3.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def size_now(self, path: str) -> Callable[[], int | None]:
        """Asks how large a file is at this moment; None where there is none."""
        if self.root:
            target = self.root / path
            return lambda: target.stat().st_size if target.exists() else None
        s3 = self.s3

        def ask() -> int | None:
            try:
                return int(s3.head_object(Bucket=BUCKET, Key=f"{self.prefix}/{path}")["ContentLength"])
            except s3.exceptions.ClientError:
                return None

        return ask

    def _partials(self) -> list[Path]:
        assert self.root
        return [p for p in (self.root / INCOMING).glob("*") if p.is_file()]

    def _uploads(self) -> list[dict[str, Any]]:
        found = self.s3.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Uploads", [])
        return [{"Bucket": BUCKET, "Key": u["Key"], "UploadId": u["UploadId"]} for u in found]

    def unfinished(self) -> int:
        """How many uploads have begun and not ended."""
        return len(self._partials() if self.root else self._uploads())

    def arrived(self) -> int:
        """The bytes of files that are not whole yet."""
        if self.root:
            return sum(p.stat().st_size for p in self._partials() if p.exists())
        s3 = self.s3
        return sum(p["Size"] for u in self._uploads() for p in s3.list_parts(**u).get("Parts", []))

    def partial(self) -> int | None:
        """How large the unfinished file of a store on this host's disk is now."""
        try:
            return next((p.stat().st_size for p in self._partials()), None) if self.root else None
        except FileNotFoundError:
            return None

    def spoil(self, source: Path) -> None:
        """Change a byte of what has arrived of the one unfinished file."""
        if self.root:
            (partial,) = self._partials()
            with partial.open("r+b") as stream:
                stream.seek(1000)
                byte = stream.read(1)
                stream.seek(1000)
                stream.write(bytes([byte[0] ^ 1]))
            return
        # SeaweedFS keeps a part that is sent twice in both forms: so this is an upload of somebody else's.
        (upload,) = self._uploads()
        self.s3.abort_multipart_upload(**upload)
        upload["UploadId"] = self.s3.create_multipart_upload(Bucket=BUCKET, Key=upload["Key"])["UploadId"]
        data = bytearray(source.read_bytes()[: 2 * PART])
        data[1000] ^= 1
        for number in (1, 2):
            self.s3.upload_part(**upload, PartNumber=number, Body=bytes(data[(number - 1) * PART : number * PART]))


class Publisher:
    """store_publisher.py, at work on a place; leaving the block kills it."""

    def __init__(self, place: Place, act: str, name: str, go: bool = True, **order: object) -> None:
        self.ready, self._go = place.folder / f"{name}.ready", place.folder / "go"
        if go:
            self._go.touch()
        order |= {"url": place.url, "act": act, "ready": str(self.ready), "go": str(self._go)}
        order["options"] = dataclasses.asdict(place.options)
        words = [sys.executable, "-m", "tests.pipeline.store_publisher", json.dumps(order, default=str)]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *words],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()

    def start(self) -> None:
        """Let all go that wait."""
        self._go.touch()

    def at(self, moment: Callable[[], bool], what: str) -> None:
        """Wait for a moment of its work, closely."""
        deadline = time.monotonic() + 60
        while not moment():
            assert self.process.poll() is None, f"it ended before {what}: {self.process.communicate()}"
            assert time.monotonic() < deadline, f"{what}: not within a minute"
            time.sleep(0.0005)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def result(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=120)
        assert out, err
        return dict(json.loads(out.splitlines()[-1]))


@contextmanager
def watched(ask: Callable[[], int | None]) -> Iterator[set[int | None]]:
    """All that is answered meanwhile."""
    seen: set[int | None] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.001):
            seen.add(ask())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def clients_ended(place: Place) -> None:
    """Wait until no ssh or sftp runs that a publisher has started, other than those of this process."""

    def left() -> list[tuple[int, str]]:
        config, ours = place.options.ssh_config, descendants(os.getpid())
        return [found for found in (processes_of(config) if config else []) if found[0] not in ours]

    until(lambda: (not (found := left()), found), "ssh and sftp have ended", 10)
