"""A version of the built image as it lies in a store, in the formats of the ecosystem; and clients to read it with."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foundry import apt, config, gpg, image, run, verify, wheels
from foundry.publish import aptrepo, bundle, formats, streams
from foundry.publish.version import Version
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, inv
from tests.pipeline.mirrors import serving

DOMAIN = "com.example.images"
LOCK = Path(__file__).with_name("simplestreams.txt")


@dataclass(frozen=True)
class Published:
    """A store with one version in it. repository: as lay_out() made it. public: the key as gpgv takes it."""

    store: Path
    version: Version
    repository: Path
    index: bytes
    key: gpg.Key
    public: Path
    scratch: Path

    @property
    def served(self) -> streams.Served:
        folder = self.store / self.version.folder
        disk = streams.disk(self.version)
        assert disk
        return streams.Served(self.version, streams.fingerprint(folder / streams.METADATA, folder / disk))

    def suite(self, date: datetime | None = None, **options: object) -> dict[str, bytes]:
        """What apt sees of the channel stable. options: of aptrepo.view."""
        moment = date or datetime.now(UTC)
        chosen = {"key": self.key, "date": moment, **options}
        return aptrepo.view(self.index, self.version.image, "stable", scratch=self.scratch, **chosen)  # type: ignore[arg-type]

    def sources(self, url: str) -> str:
        """The .sources file for this store at a URL."""
        return aptrepo.sources(url, aptrepo.suite_name(self.version.image, "stable"), self.key.armored())


def publish(built: Path, folder: Path) -> Published:
    """What was built last, published to a store in folder; both channels point at it."""
    workspace = Workspace(ROOT, built, "formats")
    release = image.newest(workspace, config.pick_image(config.load(workspace.config, {}), None))
    proved(built)
    store, scratch = folder / "store", folder / "scratch"
    scratch.mkdir(parents=True)
    said = {"to": str(store), "key": "throw-away", "domain": DOMAIN}
    words = [w for name, value in said.items() for w in ("--set", f"publish.{name}={value}")]
    for channel in ("stable", "candidate"):
        inv(built, "publish", "--channel", channel, *words, seconds=300).expect(0)
    made = bundle.load(release, store / "images" / str(release.manifest["name"]) / str(release.manifest["version"]))
    index = (made.folder / formats.INDEX).read_bytes()
    repository = folder / "repository"
    repository.mkdir()
    (repository / "pool").symlink_to(store / "apt/pool")
    (repository / "Packages").write_bytes(index)
    key = gpg.throw_away(workspace.publisher, "")
    return Published(store, made.version, repository, index, key, key.public(folder / "key.gpg"), scratch)


def proved(built: Path) -> None:
    """See to it that what was built last has a verdict; after `./inv build-image` it has one."""
    workspace = Workspace(ROOT, built, "proved")
    release = image.newest(workspace, config.pick_image(config.load(workspace.config, {}), None))
    if verify.refusal(verify.verdict_path(release.main), release.digest, workspace, 30):
        inv(built, "verify-image", seconds=1800).expect(0)


def write(store: Path, view: Mapping[str, bytes], moment: datetime | None = None) -> None:
    """moment: when the files were written, as far as a web server tells; to the second, as HTTP's dates are."""
    for path, data in view.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).unlink(missing_ok=True)
        (store / path).write_bytes(data)
        if moment:
            os.utime(store / path, (moment.timestamp(), moment.timestamp()))


def flipped(path: Path, at: int | None = None) -> None:
    """Change one bit of a file that may be a link: the original stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.unlink()
    path.write_bytes(data)


@contextmanager
def https(folder: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server for a folder, and the certificate that it shows."""
    certificate, key = scratch / "tls.pem", scratch / "tls.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    run.run([*words, "-keyout", key, "-out", certificate], name="openssl", on_line=None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(folder, context) as url:
        yield url, certificate


@dataclass(frozen=True)
class Query:
    """sstream-query, unpacked below folder: Debian has no package of it, its authors' is on PyPI."""

    folder: Path

    def ask(self, *words: str, keyring: Path) -> subprocess.CompletedProcess[str]:
        script = next(self.folder.glob("*.data/scripts/sstream-query"))
        command = [sys.executable, str(script), f"--keyring={keyring}", *words]
        env = {**os.environ, "PYTHONPATH": str(self.folder)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def sstream_query(built: Path, folder: Path) -> Query:
    """Fetch it as it is pinned beside this file."""
    wheel = wheels.fetch([LOCK], (3, 11), Workspace(ROOT, built, "simplestreams"))[0]
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return Query(folder)


@dataclass(frozen=True)
class Client:
    """The client of incus or of LXD, unpacked: it needs no daemon to read a server. home: its own settings."""

    program: Path
    home: Path
    certificate: Path

    def __call__(self, *words: str, code: int = 0) -> str:
        env = {**os.environ, "HOME": str(self.home), "SSL_CERT_FILE": str(self.certificate)}
        ended = subprocess.run(
            [str(self.program), *words], env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr


def client_debs(built: Path, folder: Path) -> dict[str, Path]:
    """The programs incus (of Debian 12's backports) and lxc (LXD's, of Debian 12), unpacked below folder."""
    workspace = Workspace(ROOT, built, "clients")
    main = apt.sources(config.load(workspace.config, {}), "bookworm")[0]
    found = {}
    folder.mkdir()
    for package, program, source in (
        ("lxd-client", "lxc", main),
        ("incus-client", "incus", replace(main, suite="bookworm-backports")),
    ):
        resolver = apt.Resolver(workspace, [main, source] if source != main else [main])
        resolver.update()
        deb = next(p for p in resolver.resolve([package], name=package) if p.name == package)
        resolver.fetch([deb])
        run.run(["dpkg-deb", "-x", workspace.pool / deb.filename, folder / program], name="dpkg-deb", on_line=None)
        found[program] = folder / program / "usr/bin" / program
    return found


def days(number: int) -> timedelta:
    return timedelta(days=number)
