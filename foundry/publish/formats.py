"""What a version has for other programs: an index of its packages for apt, all of them in one file, facts for incus."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry import files, gpg, image, log
from foundry.publish import aptrepo, offline, streams
from foundry.publish.version import Version
from foundry.workspace import Workspace

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
        version = Version(str(release.manifest["name"]), str(release.manifest["version"]), (), release.manifest)
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


def problems(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What of these files is about another image than the manifest in a version's folder."""
    index = (folder / INDEX).read_bytes()
    inside = {(str(p["name"]), str(p["version"]), str(p["arch"])): str(p["sha256"]) for p in manifest["packages"]}
    entries = aptrepo.entries(index)
    found = [
        f"{INDEX}: {e.name} {e.version} is not the package that is in the image"
        for e in entries
        if inside.get((e.name, e.version, e.arch)) != e.sha256
    ]
    version = Version(str(manifest["name"]), str(manifest["version"]), (), manifest)
    found += _packed(folder / offline.name(version), {e.path: e.sha256 for e in entries})
    disk = next((str(f["name"]) for f in manifest["files"] if str(f["name"]).endswith(".qcow2")), None)
    if disk and json.loads((folder / STREAM).read_text(encoding="utf-8")) != _stream(folder, disk):
        found.append(f"{STREAM} is about other files than {streams.METADATA} and {disk}")
    return found


def _packed(tarball: Path, packages: Mapping[str, str]) -> list[str]:
    """What differs between the packages in a tarball and those of an index (path to sha256)."""
    left = dict(packages)
    with tarfile.open(tarball) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            stream = archive.extractfile(member) if path.startswith("pool/") and member.isreg() else None
            if stream and hashlib.sha256(stream.read()).hexdigest() != left.pop(path, None):
                return [f"{tarball.name}: {path} is not the package that {INDEX} names"]
    return [f"{tarball.name} has no {path}" for path in left]
