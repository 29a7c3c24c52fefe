"""A private apt: its own sources, lists and empty dpkg status, so that the host's packages play no part.

It asks Debian's apt which packages a set of names means today, and fetches them, checked against the archive's keys.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foundry import files, log, run
from foundry.config import Config, Row
from foundry.config import explain as explain_settings
from foundry.errors import CommandFailed, ConfigError, FetchError
from foundry.workspace import Workspace

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_UNREACHABLE = (
    "check the network, a proxy, and the mirror (`./inv config` shows it); `--offline` builds from the last fetch"
)


@dataclass(frozen=True, order=True)
class Package:
    """One .deb of the archive: name, version and architecture, where it lies, its sha256 and size in bytes."""

    name: str
    version: str
    arch: str
    filename: str
    uri: str
    sha256: str
    size: int


def pool_name(name: str, version: str, arch: str) -> str:
    """What apt calls a .deb that it has fetched: a colon would not do in a file's name."""
    return f"{name}_{version.replace(':', '%3a')}_{arch}.deb"


@dataclass(frozen=True)
class Source:
    """One line of sources.list."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str

    def line(self) -> str:
        return f"deb [signed-by={self.signed_by}] {self.uri} {self.suite} {' '.join(self.components)}"


def sources(config: Config, suite: str) -> list[Source]:
    """The archives of a suite: as foundry.yml says, else those of the build host, its updates and security included.

    Raises ConfigError where neither names a mirror.
    """
    main = config.archive.mirror or _host_uri(suite, "")
    if not main:
        raise ConfigError(
            f"no Debian mirror: the build host's apt sources have none for {suite}",
            hint="set archive.mirror and archive.security_mirror in foundry.yml",
        )
    security = config.archive.security_mirror or _host_uri(suite, "-security")
    components = tuple(config.archive.components)
    found = [Source(main, suite, components, DEBIAN_KEYRING)]
    found.append(Source(config.archive.updates or main, f"{suite}-updates", components, DEBIAN_KEYRING))
    if not security:
        log.info("no security archive is known: the image will lack security updates (archive.security_mirror)")
    else:
        found.append(Source(security, f"{suite}-security", components, DEBIAN_KEYRING))
    if config.postgresql.source == "pgdg":
        found.append(Source(str(config.postgresql.uri), f"{suite}-pgdg", ("main",), str(config.postgresql.signed_by)))
    if config.consul.source == "hashicorp":
        found.append(Source(str(config.consul.uri), suite, ("main",), str(config.consul.signed_by)))
    return found


def _host_uri(suite: str, part: str) -> str | None:
    """The archive that the build host's apt uses for its own suite, or for the one asked for."""
    # Unlike `apt-get indextargets`, this answers before the host's first `apt-get update` as well.
    listing = run.capture(["apt-get", "update", "--print-uris"], name="apt-sources")
    rows = re.findall(r"^'(\S+)/dists/(\S+)/InRelease'", listing, re.MULTILINE)
    exact = [uri for uri, release in rows if release == suite + part]
    host = _host_suite()
    similar = [uri for uri, release in rows if host and release == host + part]
    return next(iter(exact + similar), None)


def _host_suite() -> str | None:
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return None


def explain(config: Config) -> list[Row]:
    """The rows of `./inv config`: as config.explain() has them, with the archives that the build host's apt gives."""
    given = {
        f"{s.suite.partition('-')[2] or 'main'}": s.uri
        for s in sources(config, next(iter(config.images.values())).suite)
    }
    parts = {"archive.mirror": "main", "archive.security_mirror": "security", "archive.updates": "updates"}
    return [
        Row(row.key, given[parts[row.key]], "the build host's apt sources")
        if row.value is None and given.get(parts.get(row.key, ""))
        else row
        for row in explain_settings(config)
    ]


class Resolver:
    """The private apt root of a workspace for one list of sources.

    expired: take indexes past their date too, as those of an archive of snapshots are; whoever asks for that has the
    sha256 of all that is fetched.
    """

    def __init__(self, workspace: Workspace, archives: Sequence[Source], *, expired: bool = False) -> None:
        self.root = workspace.resolver
        self.pool = workspace.pool
        self._lay_out(archives)
        self._options = ["-o", "Acquire::Check-Valid-Until=false"] if expired else []

    def _lay_out(self, archives: Sequence[Source]) -> None:
        for folder in (
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/trusted.gpg.d",
            "etc/apt/sources.list.d",
        ):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "var/lib/apt/lists/partial").mkdir(parents=True, exist_ok=True)
        (self.root / "var/cache/apt").mkdir(parents=True, exist_ok=True)
        (self.pool / "partial").mkdir(parents=True, exist_ok=True)
        files.write(self.root / "var/lib/dpkg/status", "")
        files.write(self.root / "etc/apt/sources.list", "".join(s.line() + "\n" for s in archives))
        pins = "".join(
            f"Package: postgresql* libpq*\nPin: release n={s.suite}\nPin-Priority: 700\n\n"
            for s in archives
            if s.suite.endswith("-pgdg")
        )
        files.write(self.root / "etc/apt/preferences", pins)
        files.write(
            self.root / "apt.conf",
            f'Dir "{self.root}/";\n'
            f'Dir::State::status "{self.root}/var/lib/dpkg/status";\n'
            f'Dir::Cache::archives "{self.pool}/";\n'
            'Dir::Bin::methods "/usr/lib/apt/methods";\n'
            'Acquire::Languages "none";\nAcquire::Retries "1";\nAcquire::http::Timeout "20";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'Acquire::ForceHash "SHA256";\n'
            'APT::Architecture "amd64";\nAPT::Architectures "amd64";\n'
            'APT::Install-Recommends "false";\nAPT::Sandbox::User "root";\n'
            'APT::Update::Error-Mode "any";\n',
        )

    def _apt(self, *args: str, name: str) -> str:
        words = ["apt-get", *self._options, *args]
        return run.run(words, env={"APT_CONFIG": str(self.root / "apt.conf")}, name=name).output

    def update(self) -> None:
        """Fetch the archives' indexes. Raises FetchError when one does not answer or its signature is bad."""
        with _fetching("archive: the Debian archive did not answer as it should"):
            self._apt("update", "--error-on=any", name="apt-update")

    def resolve(self, names: Iterable[str], *, name: str) -> list[Package]:
        """The packages that an empty system needs for names (apt's patterns allowed), sorted. Fetches nothing."""
        return self._parse(self._ask("install", *names, name=f"resolve-{name}"))

    def resolve_build(self, source_tree: Path, names: Iterable[str]) -> list[Package]:
        """The packages that an empty system needs to build a Debian source tree, and names."""
        wanted = {p.name for p in self._parse(self._ask("build-dep", f"{source_tree}/", name="resolve-build-dep"))}
        return self.resolve([*names, *sorted(wanted)], name="buildd")

    def _ask(self, verb: str, *names: str, name: str) -> str:
        # apt leaves out of its answer what the cache already has, so it is shown an empty one.
        nothing = f"Dir::Cache::archives={self.root}/nothing/"
        (self.root / "nothing/partial").mkdir(parents=True, exist_ok=True)
        return self._apt(verb, "-qq", "--yes", "--print-uris", "-o", nothing, *names, name=name)

    def _parse(self, output: str) -> list[Package]:
        pattern = re.compile(r"^'([^']+)' (\S+)_(\S+)_(\S+)\.deb (\d+) SHA256:([0-9a-f]{64})$", re.MULTILINE)
        return sorted(
            Package(name, urllib.parse.unquote(version), arch, f"{name}_{version}_{arch}.deb", uri, digest, int(size))
            for uri, name, version, arch, size, digest in pattern.findall(output)
        )

    def fetch(self, packages: Sequence[Package]) -> int:
        """Bring packages into the pool; returns the bytes that had to be fetched. Raises FetchError."""
        missing = [p for p in packages if not self._have(p)]
        for package in missing:
            (self.pool / package.filename).unlink(missing_ok=True)
        if missing:
            wanted = [f"{p.name}:{p.arch}={p.version}" if p.arch != "all" else f"{p.name}={p.version}" for p in missing]
            with _fetching(f"archive: could not fetch {len(missing)} packages"):
                self._apt("install", "--yes", "--download-only", "--no-install-recommends", *wanted, name="apt-fetch")
        return sum(p.size for p in missing)

    def obtain(self, packages: Sequence[Package]) -> list[Package]:
        """Bring packages of these very versions into the pool, alone; returns those that the archive lacks.

        Raises FetchError when it does not answer.
        """
        environment = {"APT_CONFIG": str(self.root / "apt.conf")}
        listing = run.capture(
            ["apt-cache", "madison", *sorted({p.name for p in packages})], env=environment, name="versions"
        )
        held = {tuple(part.strip() for part in row.split("|")[:2]) for row in listing.splitlines() if "|" in row}
        there = [p for p in packages if (p.name, p.version) in held]
        if there:
            wanted = [f"{p.name}={p.version}" for p in there]
            with _fetching(f"archive: could not fetch {len(there)} packages"):
                run.run(
                    ["apt-get", *self._options, "download", *wanted], env=environment, cwd=self.pool, name="apt-obtain"
                )
        return [p for p in packages if p not in there]

    def _have(self, package: Package) -> bool:
        path = self.pool / package.filename
        return path.is_file() and path.stat().st_size == package.size


def fetch_file(uri: str, target: Path, digest: str) -> None:
    """Fetch one file whose sha256 is known, with apt's own transport. Raises FetchError; never leaves half a file."""
    if target.is_file() and files.sha256(target) == digest:
        return
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _fetching(f"archive: {target.name} could not be fetched, or is not what foundry.yml pins"):
            run.run(["/usr/lib/apt/apt-helper", "download-file", uri, partial, f"SHA256:{digest}"], name="fetch-file")
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _fetching(brief: str) -> Iterator[None]:
    """Turn the failure of a command that fetches into a FetchError that begins with brief."""
    try:
        yield
    except CommandFailed as error:
        raise FetchError(brief, details=error.details, log=error.log, hint=_UNREACHABLE) from error
