"""What a version has for other programs: an index of its packages for apt, all of them in one file, facts for incus."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry import files, gpg, image, log
from foundry.publish import aptrepo, offline, offline_check, streams
from foundry.publish.version import Version
from foundry.workspace import SHIPPED_TEMPLATES, Workspace

INDEX = "Packages"
STREAM = "incus.json"


@dataclass(frozen=True)
class Repository:
    """The packages of a version. folder: as aptrepo.lay_out() makes it. index: of apt."""

    folder: Path
    index: bytes

    def uploads(self) -> Iterator[tuple[Path, str, str]]:
        """Each package with its path in a store and its sha256."""
        for entry in aptrepo.entries(self.index):
            yield self.folder / entry.path, f"{aptrepo.FOLDER}/{entry.path}", entry.sha256


@contextmanager
def repository(workspace: Workspace, manifest: Mapping[str, Any]) -> Iterator[Repository]:
    """The packages that an image was made of, while they are published. Raises as aptrepo.debs() and lay_out() do."""
    # Links to packages: they have to be on the file system of those.
    workspace.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.work, prefix="packages.") as name:
        log.activity("publish: laying out the packages")
        folder = Path(name) / "repository"
        index = aptrepo.lay_out(aptrepo.debs(workspace, manifest), aptrepo.roots(manifest), folder)
        yield Repository(folder, index)


@dataclass(frozen=True)
class Formats:
    """Writes these files into a version's folder. texts: templates/offline."""

    packages: Repository
    key: gpg.Key
    texts: Path

    def write(self, release: image.Release, folder: Path) -> None:
        """Write them. Raises what offline.tarball() does."""
        version = Version.of(release.manifest)
        (folder / INDEX).write_bytes(self.packages.index)
        about = streams.metadata(version.image, version.version, release.manifest)
        (folder / streams.METADATA).write_bytes(about)
        log.activity("publish: packing what needs no network")
        offline.tarball(version, self.packages.folder, self.key, self.texts, folder / offline.name(version))
        disk = next((str(f["name"]) for f in release.manifest["files"] if str(f["name"]).endswith(".qcow2")), None)
        if disk:
            files.write_json(folder / STREAM, _stream(folder, disk))


def _stream(folder: Path, disk: str) -> dict[str, Any]:
    path = folder / streams.METADATA
    return {
        "sha256": files.sha256(path),
        "size": path.stat().st_size,
        "combined_disk-kvm-img_sha256": streams.fingerprint(path, folder / disk),
    }


def expected(version: str, names: Iterable[str]) -> set[str]:
    """The names of these files, of a version that has files of these names."""
    incus = {STREAM, streams.METADATA} if any(name.endswith(".qcow2") for name in names) else set()
    return {INDEX, offline.name(Version("", version, (), {}))} | incus


def problems(folder: Path, manifest: Mapping[str, Any], keys: Path, scratch: Path) -> list[str]:
    """What of these files is about another image than the manifest in a version's folder. keys: its publisher's.

    Raises BadSignature where the tarball's repository is signed by somebody else.
    """
    index = (folder / INDEX).read_bytes()
    try:
        entries = aptrepo.entries(index)
    except (KeyError, ValueError) as error:
        return [f"{INDEX} is no index of packages: {error!r}"]
    inside = {(str(p["name"]), str(p["version"]), str(p["arch"])): str(p["sha256"]) for p in manifest["packages"]}
    found = [
        f"{INDEX}: {e.name} {e.version} is not the package that is in the image"
        for e in entries
        if inside.get((e.name, e.version, e.arch)) != e.sha256
    ]
    # Debian has the others as well, but nobody else has these.
    own = {str(row["sha256"]) for row in manifest["inputs"]["debs"]} - {e.sha256 for e in entries}
    found += [f"{INDEX} has no {name} {version}" for (name, version, _), sha256 in inside.items() if sha256 in own]
    version = Version.of(manifest)
    tarball = folder / offline.name(version)
    found += offline_check.wrong(tarball, index, version, keys, SHIPPED_TEMPLATES / "offline", scratch)
    return [*found, *_described(folder, version)]


def _described(folder: Path, version: Version) -> list[str]:
    """What of the files for incus is about others."""
    disk = next((str(f["name"]) for f in version.manifest["files"] if str(f["name"]).endswith(".qcow2")), None)
    if disk is None:
        return []
    found = []
    if files.read_json(folder / STREAM) != _stream(folder, disk):
        found.append(f"{STREAM} is about other files than {streams.METADATA} and {disk}")
    if not streams.fits(folder / streams.METADATA, version):
        found.append(f"{streams.METADATA} describes another image than the manifest")
    return found
