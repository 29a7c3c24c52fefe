"""The apt repository: a version's packages with all that they need, and what apt sees of each channel.

The formats are those of Debian: https://wiki.debian.org/DebianRepository/Format, apt-secure(8), sources.list(5).
"""

from __future__ import annotations

import errno
import lzma
import os
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from debian.deb822 import Deb822

from foundry import apt, files, gpg, run
from foundry.errors import ConfigError, CorruptArtifact, FoundryError
from foundry.workspace import Workspace

FOLDER = "apt"
PRODUCT = "Patroni Foundry"
ARCHITECTURE = "amd64"
COMPONENT = "main"
_AREA = f"{COMPONENT}/binary-{ARCHITECTURE}"
BY_HASH = f"{_AREA}/by-hash/SHA256"
# Of a suite's folder: the index in each form, and what is signed.
INDEXES = (f"{_AREA}/Packages", f"{_AREA}/Packages.xz")
SIGNED = ("InRelease", "Release", "Release.gpg")
# What a stock Debian has is asked for too: it may have older versions than those that our packages want.
STOCK = ("?essential", "?priority(required)", "apt", "systemd-sysv")
ROOT = "patroni-node"
# sha256 is all that apt has asked for since Debian 9, and every further digest reads each .debs again.
_ONE_DIGEST = [w for name in ("MD5", "SHA1", "SHA512") for w in ("-o", f"APT::FTPArchive::{name}=false")]


class NotClosed(ConfigError):
    """The packages at hand do not contain all that they depend on."""


class SameName(FoundryError):
    """A package has other bytes than one of the same name, version and architecture that is published already."""

    code = 15


@dataclass(frozen=True)
class Deb:
    """A .deb on this host, and the sha256 that it must have."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A package of an index. path: relative to the repository's root. size: bytes. sha256: hex."""

    name: str
    version: str
    arch: str
    path: str
    size: int
    sha256: str


def roots(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What the repository of an image is made for: a node on a stock Debian, and what foundry.yml adds to the image."""
    image = manifest["configuration"]["images"][manifest["name"]]
    return (ROOT, *STOCK, *image["packages"])


def debs(workspace: Workspace, manifest: Mapping[str, Any]) -> list[Deb]:
    """The .deb of every package that is in an image. Raises CorruptArtifact where one is not to be found any more."""
    built = {row["sha256"]: row["name"] for row in manifest["inputs"]["debs"]}
    return [Deb(_find(workspace, row, built.get(row["sha256"])), row["sha256"]) for row in manifest["packages"]]


def _find(workspace: Workspace, row: Mapping[str, str], built: str | None) -> Path:
    fetched = workspace.pool / apt.pool_name(row["name"], row["version"], row["arch"])
    if fetched.is_file():
        return fetched
    # What we build lies with its stage; Consul may be a file of the user's, which only the repository of the build has.
    places = [*workspace.stage(row["name"]).glob(f"*/{built}"), *workspace.stage("archive").glob(f"*/pool/{built}")]
    found = next((p for p in sorted(places) if files.sha256(p) == row["sha256"]), None) if built else None
    if found:
        return found
    raise CorruptArtifact(
        f"publish: {workspace.build} has no {row['name']} {row['version']} with sha256 {row['sha256']} any more",
        hint="`./inv build-image` makes an image whose packages are at hand",
    )


def lay_out(packages: Sequence[Deb], wanted: Sequence[str], folder: Path) -> bytes:
    """Make a folder the repository of a version; returns its index, which is written to folder/Packages as well.

    Of the packages it takes those that apt installs for wanted (names, and apt's patterns) on an empty system, with
    what these recommend where it is at hand. They are links below folder/pool, by package.
    Raises NotClosed, and CorruptArtifact for a .deb that is not what was recorded.
    """
    folder.mkdir(parents=True)
    every = folder / "every"
    every.mkdir()
    for number, deb in enumerate(packages):
        link(deb.path, every / f"{number}.deb")
    everything = _index(folder, "every")
    _compare(everything, packages)
    needed = _closure(folder, everything, wanted)
    for entry in entries(everything):
        if entry.name in needed:
            target = folder / "pool" / entry.name / _file_name(entry)
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / entry.path).rename(target)
    shutil.rmtree(every)
    index = _index(folder, "pool")
    (folder / "Packages").write_bytes(index)
    return index


def link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name; where that is on another file system, copy it."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)


def _file_name(entry: Entry) -> str:
    # As in Debian's own archive, an epoch is no part of a file's name: apt would decode the %3a of it.
    return f"{entry.name}_{entry.version.rpartition(':')[2]}_{entry.arch}.deb"


def _index(folder: Path, below: str) -> bytes:
    said = run.capture(["apt-ftparchive", *_ONE_DIGEST, "packages", below], cwd=folder, name="packages")
    # apt-ftparchive takes the .debs in the order in which the file system has them.
    return "\n\n".join([*sorted(said.strip().split("\n\n")), ""]).encode()


def _compare(index: bytes, packages: Sequence[Deb]) -> None:
    for entry in entries(index):
        deb = packages[int(Path(entry.path).stem)]
        if entry.sha256 != deb.sha256:
            raise CorruptArtifact(
                f"publish: {deb.path} is not what the image was made of: its sha256 is {entry.sha256}, "
                f"the manifest has {deb.sha256}",
                hint="remove it and run `./inv build-image`: it will be made anew",
            )


def _closure(folder: Path, index: bytes, wanted: Sequence[str]) -> set[str]:
    """The names that apt would install for wanted where nothing is installed and it knows of nothing else."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch)
        for name in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True)
        (root / "repository").mkdir()
        (root / "repository/Packages").write_bytes(index)
        (root / "status").touch()
        # Trusted: the digests were just compared with the manifest's.
        line = f"deb [trusted=yes] file:{urllib.parse.quote(str(root / 'repository'))} ./\n"
        files.write(root / "sources.list", line)
        files.write(
            root / "apt.conf",
            f'Dir::Etc "{root}/etc/"; Dir::State "{root}/state/"; Dir::Cache "{root}/cache/";\n'
            f'Dir::State::status "{root}/status"; Dir::Etc::sourcelist "{root}/sources.list";\n'
            'Dir::Etc::sourceparts "-"; APT::Sandbox::User "root"; Acquire::Languages "none";\n'
            f'APT::Architecture "{ARCHITECTURE}"; APT::Architectures "{ARCHITECTURE}";\n'
            'APT::Install-Recommends "true"; APT::Install-Suggests "false";\n',
        )
        _apt(root, "update")
        answer = _apt(root, "install", "--simulate", "--", *wanted, check=False)
    if answer.returncode != 0:
        told = [line for line in answer.output.splitlines() if line.startswith((" ", "E: "))]
        raise NotClosed(
            f"publish: the image's packages do not hold all that {', '.join(wanted)} need",
            details="\n".join(told),
            log=answer.log,
            hint="what is missing is not in the image either: name it in foundry.yml, images.*.packages",
        )
    return set(re.findall(r"^Inst (\S+) ", answer.output, re.MULTILINE))


def _apt(root: Path, *words: str, check: bool = True) -> run.Result:
    return run.run(["apt-get", "-q", *words], env={"APT_CONFIG": str(root / "apt.conf")}, name="closure", check=check)


def entries(index: bytes) -> list[Entry]:
    """The packages of an index, in its order."""
    return [
        Entry(
            row["Package"], row["Version"], row["Architecture"], row["Filename"], int(row["Size"]), str(row["SHA256"])
        )
        for row in Deb822.iter_paragraphs(index, use_apt_pkg=False)
    ]


def refuse_changed(index: bytes, others: Mapping[str, bytes]) -> None:
    """Raise SameName when a package of index differs from its namesake in another version's index.

    others: the indexes of the versions in the store, by the version's name. apt tells packages apart by name, version
    and architecture, and the pool has one file for each.
    """
    ours = {entry.path: entry for entry in entries(index)}
    found: dict[str, str] = {}
    for name, other in others.items():
        for theirs in entries(other):
            mine = ours.get(theirs.path)
            if mine and mine.sha256 != theirs.sha256:
                found.setdefault(f"{mine.name} {mine.version} ({mine.arch})", name)
    if found:
        raise SameName(
            f"publish: other bytes are published already as {', '.join(sorted(found))}",
            details="\n".join(f"{package}: in {version}" for package, version in sorted(found.items())),
            hint="raise the version in debian/changelog (`dch -i`), or Consul's where it is a .deb of your own, and "
            "build again",
        )


def suite_name(image: str, channel: str) -> str:
    """The suite by which apt knows a channel of an image: "debian-12-stable"."""
    return f"{image}-{channel}"


def dists(
    index: bytes, suite: str, key: gpg.Key, scratch: Path, *, date: datetime, valid_for: timedelta | None = None
) -> dict[str, bytes]:
    """What apt reads of a suite, by path relative to the repository's root, in the order in which it is to be written.

    date: when the suite was changed. apt keeps what it has when it is offered an older one, so this is the time of the
    move, also where a channel goes back to an older version. valid_for: after which apt refuses it; None for never.
    by-hash comes first: whoever has read the old InRelease finds the old indexes, if they were left there.
    """
    indexes = dict(zip(INDEXES, packed(index), strict=True))
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".suite.") as name:
        folder = Path(name)
        for path, data in indexes.items():
            (folder / "suite" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "suite" / path).write_bytes(data)
        release = _release(folder / "suite", suite, date, valid_for)
        files.write(folder / "Release", release)
        signed = key.clearsign(release, folder)
        detached = key.detach(folder / "Release", folder / "Release.gpg", armor=True).read_bytes()
        digests = {path: files.sha256(folder / "suite" / path) for path in indexes}
    view = {f"{BY_HASH}/{digests[path]}": data for path, data in indexes.items()}
    view |= {"InRelease": signed.encode()} | indexes | {"Release": release.encode(), "Release.gpg": detached}
    return {f"dists/{suite}/{path}": data for path, data in view.items()}


def packed(index: bytes) -> tuple[bytes, bytes]:
    """An index as apt reads it: as it is, and as small as xz makes it."""
    return index, lzma.compress(index, preset=9 | lzma.PRESET_EXTREME)


def by_hash(image: str, channel: str) -> str:
    """The folder in a store that has a suite's indexes by their digest, old ones as well."""
    return f"{FOLDER}/dists/{suite_name(image, channel)}/{BY_HASH}"


def release_fields(suite: str) -> dict[str, str]:
    """What the Release file of a suite says beside its time and its files."""
    return {
        "Origin": PRODUCT,
        "Label": PRODUCT,
        "Suite": suite,
        "Codename": suite,
        "Acquire-By-Hash": "yes",
        "Architectures": ARCHITECTURE,
        "Components": COMPONENT,
    }


def _release(folder: Path, suite: str, date: datetime, valid_for: timedelta | None) -> str:
    fields = {**release_fields(suite), "Date": _date(date)}
    if valid_for is not None:
        # Without ValidTime, apt-ftparchive writes no Valid-Until at all.
        fields |= {"ValidTime": "1", "Valid-Until": _date(date + valid_for)}
    words = [w for name, value in fields.items() for w in ("-o", f"APT::FTPArchive::Release::{name}={value}")]
    said = run.capture(["apt-ftparchive", *_ONE_DIGEST, *words, "release", "."], cwd=folder, name="release")
    return f"{said}\n"


def _date(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%a, %d %b %Y %H:%M:%S} UTC"


def view(
    index: bytes,
    image: str,
    channel: str,
    key: gpg.Key,
    scratch: Path,
    *,
    date: datetime,
    valid_for: timedelta | None = None,
) -> dict[str, bytes]:
    """What apt reads of a channel, by path in the store, in the order in which it is to be written: see dists()."""
    suite = suite_name(image, channel)
    found = dists(index, suite, key, scratch, date=date, valid_for=valid_for)
    return {f"{FOLDER}/{path}": data for path, data in found.items()}


def sources_path(image: str, channel: str) -> str:
    """Where the store has the .sources file of a channel."""
    return f"{FOLDER}/{suite_name(image, channel)}.sources"


def sources(url: str, suite: str, armored: str) -> str:
    """The .sources file of a suite, with the key in it, so that it is all that a machine needs (sources.list(5)).

    url: of the repository's root, where dists/ and pool/ are: http(s):, or file: for a folder.
    armored: the public key as text.
    """
    key = "".join(f" {line or '.'}\n" for line in armored.strip().splitlines())
    return (
        "Types: deb\n"
        f"URIs: {url}\n"
        f"Suites: {suite}\n"
        f"Components: {COMPONENT}\n"
        f"Architectures: {ARCHITECTURE}\n"
        f"Signed-By:\n{key}"
    )


def unused(pool: Iterable[str], indexes: Iterable[bytes]) -> list[str]:
    """Those of the pool's paths that no index names any more, sorted."""
    return sorted(set(pool) - {entry.path for index in indexes for entry in entries(index)})
