"""The archive stage: every package that the other stages install, as one local signed apt repository.

A golden image should carry today's security updates, so each run asks Debian's archive what is newest; what it got is
recorded by version and sha256. Later stages see only this repository and need no network.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from foundry import apt, files, gpg, log, run, stages
from foundry import epoch as dates
from foundry.config import Config, Image
from foundry.errors import ConfigError, CorruptArtifact, FetchError
from foundry.workspace import Workspace

# What every image has; the .debs' own dependencies come on top, so that the Packer step finds them already installed.
BASE_PACKAGES = (
    "apt",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "libpam-systemd",
    "udev",
    "dbus",
    "kmod",
    "openssh-server",
    "cloud-init",
    "grub2-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "shim-signed",
    "sudo",
    "ca-certificates",
    "curl",
    "less",
    "nano",
    "iproute2",
    "iputils-ping",
    "netbase",
    "procps",
    "logrotate",
    "debian-archive-keyring",
)
NODE_DEPENDENCIES = (
    "python3",
    "python3-yaml",
    "python3-jinja2",
    "python3-jsonschema",
    "nftables",
    "openssl",
    "pgbackrest",
    "libpq5",
    "libsystemd0",
    "adduser",
    "pipexec",
)
ESSENTIAL = ("?essential", "?priority(required)")
BUILD_PACKAGES = ("apt", "build-essential", "fakeroot")
# For mmdebstrap: apt's own user could not read a repository below a home folder, which is 0700 on Debian 12.
READ_AS_ROOT = '--aptopt=APT::Sandbox::User "root"'
KEY_NAME = "Patroni Foundry local repository (throw-away)"


@dataclass(frozen=True)
class Archive:
    """The local repository: its folder, its public key, and the packages of each set.

    common: those of base that every image has; all of base where they are other ones without images.NAME.packages.
    """

    folder: Path
    public_key: Path
    base: tuple[apt.Package, ...]
    buildd: tuple[apt.Package, ...]
    consul: Path | None
    key: str
    sources: tuple[apt.Source, ...]
    """Where an image takes its updates from."""
    common: tuple[apt.Package, ...]

    def line(self) -> str:
        """The sources.list line by which the build host's tools use it."""
        return f"deb [signed-by={self.public_key}] copy:{self.folder} ./"


@dataclass(frozen=True)
class Pinned:
    """What a rebuild takes in place of today's packages. All of it is in the pool; consul: its path there."""

    base: tuple[apt.Package, ...]
    buildd: tuple[apt.Package, ...]
    sources: tuple[apt.Source, ...]
    consul: Path | None
    common: tuple[apt.Package, ...]


def epoch(packages: Archive, workspace: Workspace) -> int:
    """The date of an image: of its newest package, Consul's and our own among them."""
    debs = [packages.folder / "pool" / _in_pool(p) for p in packages.base]
    return dates.of([*debs, *([packages.consul] if packages.consul else [])], workspace.debian / "changelog")


def kernel(packages: Archive, target: Path) -> Path:
    """Unpack the kernel that images will have into the file target, for the KVM probe. Raises CommandFailed."""
    found = next(p for p in packages.base if p.name.startswith("linux-image-") and p.name != "linux-image-cloud-amd64")
    name = found.name.removeprefix("linux-image-")
    deb = packages.folder / "pool" / _in_pool(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    run.run(["dpkg-deb", "--extract", deb, target.parent / "kernel"], name="kernel")
    os.replace(target.parent / "kernel" / "boot" / f"vmlinuz-{name}", target)
    return target


def common_names(config: Config) -> list[str]:
    """The names of Debian's packages that every image has."""
    return [*ESSENTIAL, *BASE_PACKAGES, *NODE_DEPENDENCIES, f"postgresql-{config.postgresql.version}"]


def base_names(config: Config, image: Image) -> list[str]:
    """The names of Debian's packages that the base of an image is made from."""
    return [*common_names(config), *image.packages]


def build(
    config: Config, image: Image, workspace: Workspace, *, offline: bool = False, pinned: Pinned | None = None
) -> Archive:
    """Resolve today's versions, fetch what is missing, and lay out and sign the repository.

    offline: use the newest earlier result instead of asking the archive. pinned: take these, and ask nobody.
    Raises FetchError when the archive does not answer, or when there is no earlier result to use offline.
    """
    if pinned:
        return _of(pinned, None, config, image, workspace)
    sources = tuple(apt.sources(config, image.suite))
    if offline:
        return _latest(workspace, sources)
    # apt hangs when the disk fills up under its indexes.
    files.need_space(workspace.build, 300_000_000, "archive")
    resolver = apt.Resolver(workspace, sources)
    log.activity("archive: asking for today's packages")
    resolver.update()
    base = resolver.resolve(base_names(config, image), name="base")
    common = resolver.resolve(common_names(config), name="common") if image.packages else base
    if not set(common) <= set(base):
        common = base
    buildd = resolver.resolve_build(workspace.root, [*ESSENTIAL, *BUILD_PACKAGES])
    pinned = Pinned(tuple(base), tuple(buildd), sources, None, tuple(common))
    return _of(pinned, resolver, config, image, workspace)


def _of(chosen: Pinned, resolver: apt.Resolver | None, config: Config, image: Image, workspace: Workspace) -> Archive:
    """The repository of chosen packages; resolver: what fetches those that the pool lacks, and Consul."""
    base, buildd = chosen.base, chosen.buildd
    pin = consul_pin(config, chosen.sources)
    inputs = {
        **{f"package {p.name}": f"{p.version} {p.sha256}" for p in [*base, *buildd]},
        "set base": files.sha256_text(files.canonical([p.filename for p in base])),
        "set buildd": files.sha256_text(files.canonical([p.filename for p in buildd])),
        "set common": files.sha256_text(files.canonical([p.filename for p in chosen.common])),
        "consul": files.canonical({k: v for k, v in pin.items() if k not in ("uri", "path")}),
        **stages.recipe(apt, dates, sys.modules[__name__]),
    }
    decision = stages.decide(workspace, "archive", inputs)

    def act(scratch: Path) -> None:
        every = sorted({*base, *buildd})
        total = sum(p.size for p in every)
        files.need_space(workspace.build, 3 * total, "archive")
        fetched = resolver.fetch(every) if resolver else 0
        log.info(f"fetched {files.human(fetched)} of {files.human(total)} in {len(every)} packages")
        _check(workspace.pool, every)
        consul = _fetch_consul(workspace, resolver, pin) if resolver else chosen.consul
        _lay_out(workspace, image.suite, scratch, every, consul)
        files.write_json(
            scratch / "sets.json",
            {
                "base": [asdict(p) for p in base],
                "buildd": [asdict(p) for p in buildd],
                "common": [p.name for p in chosen.common],
                "consul": consul and consul.name,
                "key": decision.key,
            },
        )

    return _open(stages.perform(workspace, decision, act), chosen.sources)


def _open(folder: Path, sources: Sequence[apt.Source]) -> Archive:
    sets = files.read_json(folder / "sets.json")
    base, common = tuple(apt.Package(**p) for p in sets["base"]), set(sets["common"])
    return Archive(
        folder,
        folder / "key.gpg",
        base,
        tuple(apt.Package(**p) for p in sets["buildd"]),
        folder / "pool" / sets["consul"] if sets["consul"] else None,
        sets["key"],
        tuple(sources),
        tuple(p for p in base if p.name in common),
    )


def intact(packages: Archive, workspace: Workspace) -> None:
    """Look at every .deb of the repository before something is made from them.

    Raises CorruptArtifact, and forgets the result and the .deb, so that the next run fetches it anew.
    """
    outputs = files.read_json(packages.folder / stages.RECORD)["outputs"]
    for path in sorted((packages.folder / "pool").iterdir()):
        if files.sha256(path) == outputs[str(path.relative_to(packages.folder))]["sha256"]:
            continue
        (packages.folder / stages.RECORD).unlink()
        for name in workspace.pool.glob(f"{path.name.partition('_')[0]}_*.deb"):
            if name.samefile(path):
                name.unlink()
        path.unlink()
        raise CorruptArtifact(
            f"archive: {path} is not what was fetched; it was removed", hint="run it again: it will be fetched anew"
        )


def _latest(workspace: Workspace, sources: Sequence[apt.Source]) -> Archive:
    store = workspace.stage("archive")
    results = [p.parent for p in store.glob("*/" + stages.RECORD)]
    if not results:
        raise FetchError("archive: --offline, but nothing was fetched before", hint="run it once without --offline")
    newest = max(results, key=lambda p: p.stat().st_mtime)
    log.reused("archive", "--offline: Debian's archive was not asked")
    return _open(newest, sources)


def _check(pool: Path, packages: Sequence[apt.Package]) -> None:
    for package in packages:
        path = pool / package.filename
        if not path.is_file() or files.sha256(path) != package.sha256:
            path.unlink(missing_ok=True)
            raise CorruptArtifact(
                f"archive: {path} is not what Debian's archive signed; it was removed",
                hint="run it again: it will be fetched anew",
            )


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        # A Consul of the user's own may lie on another file system.
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)


def _in_pool(package: apt.Package) -> str:
    """As in Debian's own archive, an epoch is no part of a file's name: apt would decode the %3a of it."""
    return re.sub(r"_\d+%3a", "_", package.filename)


def _lay_out(
    workspace: Workspace, suite: str, folder: Path, packages: Sequence[apt.Package], consul: Path | None
) -> None:
    for package in packages:
        _link(workspace.pool / package.filename, folder / "pool" / _in_pool(package))
    if consul:
        _link(consul, folder / "pool" / consul.name)
    index_and_sign(workspace, folder, suite)


def index_and_sign(workspace: Workspace, folder: Path, suite: str) -> None:
    """Make a folder of .debs a flat signed repository: Packages, Release, InRelease, and key.gpg beside them.

    Packages and Release come from the .debs alone; the signature has its own time, and a key that is thrown away.
    """
    index = run.capture(["apt-ftparchive", "packages", "."], cwd=folder, name="packages")
    # apt-ftparchive takes the .debs in the order in which the file system has them.
    files.write(folder / "Packages", "".join(f"{row}\n\n" for row in sorted(index.strip().split("\n\n"))))
    date = dates.release_date(dates.of(folder.rglob("*.deb")))
    release = run.capture(
        [
            "apt-ftparchive",
            *("-o", "APT::FTPArchive::Release::Origin=Patroni Foundry"),
            *("-o", f"APT::FTPArchive::Release::Suite={suite}"),
            *("-o", f"APT::FTPArchive::Release::Codename={suite}"),
            *("-o", f"APT::FTPArchive::Release::Date={date}"),
            *("release", "."),
        ],
        cwd=folder,
        name="release",
    )
    files.write(folder / "Release", release + "\n")
    key = gpg.throw_away(workspace.keyring, KEY_NAME)
    files.write(folder / "InRelease", key.clearsign(release + "\n", folder))
    key.public(folder / "key.gpg")


def consul_pin(config: Config, archives: Sequence[apt.Source]) -> dict[str, str]:
    """What foundry.yml says of Consul, as plain facts; empty where the image gets none. Raises ConfigError."""
    consul = config.consul
    if consul.source == "debian":
        version = str(consul.version)
        name = f"consul_{version.rpartition(':')[2]}_amd64.deb"
        return {"uri": f"{archives[0].uri}/pool/main/c/consul/{name}", "name": name, "sha256": str(consul.sha256)}
    if consul.source == "file":
        path = Path(str(consul.path))
        if not path.is_file():
            raise ConfigError(
                f"consul.path: there is no file {path}", hint="give the path of a consul .deb in foundry.yml"
            )
        digest = files.sha256(path)
        if consul.sha256 and digest != consul.sha256:
            raise ConfigError(f"consul.sha256: {path} has sha256 {digest}, foundry.yml pins {consul.sha256}")
        return {"path": str(path), "name": path.name, "sha256": digest}
    if consul.source == "hashicorp":
        return {"package": f"consul={consul.version}" if consul.version else "consul"}
    return {}


def _fetch_consul(workspace: Workspace, resolver: apt.Resolver, pin: dict[str, str]) -> Path | None:
    if "path" in pin:
        return Path(pin["path"])
    if "uri" in pin:
        target = workspace.pool / pin["name"]
        apt.fetch_file(pin["uri"], target, pin["sha256"])
        return target
    if "package" in pin:
        found = [p for p in resolver.resolve([pin["package"]], name="consul") if p.name == "consul"]
        resolver.fetch(found)
        _check(workspace.pool, found)
        return workspace.pool / found[0].filename
    return None
