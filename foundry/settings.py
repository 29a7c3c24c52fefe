"""What foundry.yml may say: names, types, defaults and bounds, and which settings do not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, StringConstraints

from foundry import exclusions

GIB = 1024**3
_UNITS = {"MiB": 1024**2, "GiB": GIB, "TiB": 1024 * GIB}
# Debian 11's package: Debian 12 has none, and this one installs and runs there.
DEBIAN_CONSUL = {
    "suite": "bullseye",
    "version": "1.8.7+dfsg1-2+b3",
    "sha256": "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9",
}


def parse_size(value: Any) -> Any:
    """Bytes of a text such as "8GiB". Raises ValueError for one without a known unit."""
    match = re.fullmatch(r"(\d{1,6}) ?(MiB|GiB|TiB)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError("must be a size with its unit, such as 8GiB (MiB, GiB or TiB)")
    return int(match[1]) * _UNITS[match[2]]


def _no_doubles(values: tuple[str, ...]) -> tuple[str, ...]:
    doubles = sorted({v for v in values if values.count(v) > 1})
    if doubles:
        raise ValueError(f"names {', '.join(doubles)} twice")
    return values


def _list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


_Listed = (BeforeValidator(_list), AfterValidator(_no_doubles))
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=3 * GIB, le=16 * 1024 * GIB)]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$", max_length=100)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Za-z0-9.+:~-]*$", max_length=100)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Uri = Annotated[str, StringConstraints(pattern=r"^(https?|file)://?[^\s\[\]]+$")]
SecureUri = Annotated[str, StringConstraints(pattern=r"^https://[^\s\[\]]+$")]
FilePath = Annotated[Path, BeforeValidator(_path)]
Exclusion = Annotated[str, AfterValidator(exclusions.check)]
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
CHANNEL = r"^[a-z][a-z0-9-]{0,30}$"
ChannelName = Annotated[str, StringConstraints(pattern=CHANNEL)]
Memory = Annotated[int, Field(ge=512, le=1024 * 1024)]
Cpus = Annotated[int, Field(ge=1, le=256)]
DOMAIN = r"^[a-z][a-z0-9-]*(\.[a-z0-9-]+)+$"
Domain = Annotated[str, StringConstraints(pattern=DOMAIN, max_length=200)]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
Seconds = Annotated[int, Field(ge=10, le=24 * 3600)]


class Section(BaseModel):
    """A part of foundry.yml: unknown keys and values of another type are refused, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Image(Section):
    """One golden image. disk_size is in bytes; packages are those that the node does not need but you want.

    exclude: groups and patterns of paths that it does without (exclusions.py).
    """

    suite: Literal["bookworm"] = "bookworm"
    disk_size: Size = 8 * GIB
    formats: Annotated[tuple[Literal["qcow2", "raw"], ...], *_Listed, Field(min_length=1)] = ("qcow2",)
    packages: Annotated[tuple[PackageName, ...], *_Listed] = ()
    exclude: Annotated[tuple[Exclusion, ...], *_Listed] = ()


class Archive(Section):
    """Debian's archives; None stands for those of the build host's own apt sources."""

    mirror: Uri | None = None
    security_mirror: Uri | None = None
    updates: Uri | None = None
    components: Annotated[
        tuple[Literal["main", "contrib", "non-free", "non-free-firmware"], ...], *_Listed, Field(min_length=1)
    ] = ("main",)


class Postgresql(Section):
    """Where PostgreSQL comes from. signed_by is the keyring of the PGDG archive at uri."""

    version: Literal[15] = 15
    source: Literal["debian", "pgdg"] = "debian"
    uri: SecureUri | None = None
    signed_by: FilePath | None = None


class Patroni(Section):
    """Which Patroni goes into patroni-venv; requirements/patroni.txt has the same one, with hashes."""

    version: Version = "4.1.5"
    extras: Annotated[
        tuple[
            Literal["aws", "consul", "etcd", "etcd3", "jsonlogger", "kubernetes", "raft", "systemd", "zookeeper"], ...
        ],
        *_Listed,
    ] = ("consul", "etcd3", "systemd")


class Consul(Section):
    """Where Consul comes from; with source debian, suite, version and sha256 have defaults that belong together."""

    source: Literal["debian", "hashicorp", "file", "none"] = "debian"
    suite: PackageName | None = None
    version: Version | None = None
    sha256: Digest | None = None
    path: FilePath | None = None
    uri: SecureUri | None = None
    signed_by: FilePath | None = None


class Build(Section):
    """The machine that an image is built in; all but the first key are of a virtual one."""

    machine: Literal["auto", "vm", "container"] = "auto"
    memory_mib: Memory = 2048
    cpus: Cpus = 2
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    boot_timeout_s: Seconds = 300


class Verify(Section):
    """The machine that proves an image, and for how many days its verdict counts."""

    memory_mib: Memory = 4096
    cpus: Cpus = 2
    boot_timeout_s: Seconds = 600
    max_age_days: Annotated[int, Field(ge=1, le=365)] = 30


class Publish(Section):
    """Where proved images go, and who signs them. None for `to`: the folder store/ of the project.

    endpoint, region: of S3. address: the URL at which readers find the store. domain: one's own in reverse order, which
    begins the ids of simplestreams. public_key: what readers believe, who have no secret key.
    """

    to: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None
    endpoint: Uri | None = None
    region: Region | None = None
    address: Uri | None = None
    domain: Domain | None = None
    channel: ChannelName = "candidate"
    keep: Annotated[int, Field(ge=1, le=1000)] = 5
    key: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    key_file: FilePath | None = None
    passphrase_file: FilePath | None = None
    public_key: FilePath | None = None
    valid_days: Annotated[int, Field(ge=1, le=3650)] = 30
    builder: Uri | None = None

    def url(self, project: Path) -> str | None:
        """Where to publish; a path is relative to the project's folder, as those of other settings are."""
        return self.to if self.to is None or "://" in self.to else str(project / self.to)


class Config(Section):
    """The resolved configuration."""

    images: Annotated[dict[ImageName, Image], Field(min_length=1)]
    archive: Archive = Archive()
    postgresql: Postgresql = Postgresql()
    patroni: Patroni = Patroni()
    consul: Consul = Consul()
    build: Build = Build()
    verify: Verify = Verify()
    publish: Publish = Publish()

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def default_image(self) -> str:
        """The name of the image that is built when none is asked for: the first one."""
        return next(iter(self.images))


class Conflict(NamedTuple):
    """A setting that does not go with others: its key, what is wrong, and the keys that it was compared with."""

    key: str
    text: str
    compared: tuple[str, ...] = ()


def conflicts(cfg: Config) -> Iterator[Conflict]:
    """Every combination in cfg that cannot work."""
    yield from _archive(cfg)
    yield from _postgresql(cfg)
    yield from _consul(cfg)
    yield from _images(cfg)
    yield from _publish(cfg)


def _publish(cfg: Config) -> Iterator[Conflict]:
    publish = cfg.publish
    if publish.key and publish.key_file:
        yield Conflict("publish.key_file", "names a key beside publish.key: one of them signs", ("publish.key",))
    if publish.passphrase_file and not publish.key_file:
        yield Conflict("publish.passphrase_file", "is for publish.key_file; gpg-agent asks for other keys' own")
    for name in ("key_file", "passphrase_file", "public_key"):
        path = getattr(publish, name)
        if path is not None and not path.is_file():
            yield Conflict(f"publish.{name}", f"there is no file {path}")


def _archive(cfg: Config) -> Iterator[Conflict]:
    archive = cfg.archive
    both = ("archive.mirror", "archive.security_mirror")
    if archive.mirror and not archive.security_mirror:
        yield Conflict(both[0], "needs archive.security_mirror beside it, or images miss their security updates", both)
    if archive.security_mirror and not archive.mirror:
        yield Conflict(both[1], "needs archive.mirror beside it", both)
    if archive.updates and not archive.mirror:
        yield Conflict("archive.updates", "needs archive.mirror beside it", both[:1])
    if "main" not in archive.components:
        yield Conflict("archive.components", "must have main: all that a node needs is in it")


def _postgresql(cfg: Config) -> Iterator[Conflict]:
    source = cfg.postgresql.source
    for name in ("uri", "signed_by"):
        given = getattr(cfg.postgresql, name)
        key = f"postgresql.{name}"
        if source == "pgdg" and given is None:
            yield Conflict(key, "is needed with source: pgdg", ("postgresql.source",))
        if source != "pgdg" and given is not None:
            yield Conflict(
                key, f"has no meaning with source: {source}; it goes with source: pgdg", ("postgresql.source",)
            )
    yield from _keyring("postgresql.signed_by", cfg.postgresql.signed_by)


CONSUL_NEEDS = {
    "debian": ("suite", "version", "sha256"),
    "hashicorp": ("uri", "signed_by"),
    "file": ("path",),
    "none": (),
}
CONSUL_TAKES = {"hashicorp": ("version",), "file": ("sha256",)}


def _consul(cfg: Config) -> Iterator[Conflict]:
    source = cfg.consul.source
    needed = CONSUL_NEEDS[source]
    taken = needed + CONSUL_TAKES.get(source, ())
    for name in ("suite", "version", "sha256", "path", "uri", "signed_by"):
        given = getattr(cfg.consul, name)
        key = f"consul.{name}"
        if given is None and name in needed:
            why = (
                "a version of your own needs its own sha256" if name == "sha256" else f"is needed with source: {source}"
            )
            yield Conflict(key, why, ("consul.source", "consul.version"))
        if given is not None and name not in taken:
            owners = [s for s in CONSUL_NEEDS if name in CONSUL_NEEDS[s] + CONSUL_TAKES.get(s, ())]
            text = f"has no meaning with source: {source}; it goes with source: {' or '.join(owners)}"
            yield Conflict(key, text, ("consul.source",))
    yield from _keyring("consul.signed_by", cfg.consul.signed_by)
    if source == "file" and cfg.consul.path and not cfg.consul.path.is_file():
        yield Conflict("consul.path", f"there is no file {cfg.consul.path}", ("consul.source",))


# How a public key begins: armored, and as a packet of the old and of the new format (RFC 4880, sections 4.2 and 4.3).
_KEYS = (b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"\x98", b"\x99", b"\xc6")


def _keyring(key: str, path: Path | None) -> Iterator[Conflict]:
    """It goes into the image, for everybody to read, and may have been named by a stranger's manifest."""
    if path is None:
        return
    if not path.is_file():
        yield Conflict(key, f"there is no keyring {path}")
        return
    with path.open("rb") as stream:
        if not stream.read(64).startswith(_KEYS):
            yield Conflict(key, f"{path} is no OpenPGP public key")


def _images(cfg: Config) -> Iterator[Conflict]:
    for name, image in cfg.images.items():
        if "patroni" in image.packages:
            yield Conflict(
                f"images.{name}.packages", "Debian's patroni conflicts with patroni-venv, which every image has"
            )
