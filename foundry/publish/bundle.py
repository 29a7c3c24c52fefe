"""A version as it is published: its files in one folder, with checksums and their signature."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundry import files, gpg, image, verify
from foundry.publish.version import File, Version

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.gpg"
VERDICT, REPORT = "verdict.json", "verdict.xml"


@dataclass(frozen=True)
class Bundle:
    """A version's folder on the build host. sums: sha256 of its SHA256SUMS."""

    folder: Path
    version: Version
    sums: str

    def uploads(self) -> Sequence[tuple[Path, str, str]]:
        """Each file with its path in a store and its sha256.

        The checksums come first, by which publishers tell who brings a version; the signature that makes it whole last.
        """
        listed = [(self.folder / f.name, f.name, f.sha256) for f in self.version.files]
        first, last = ((self.folder / name, name, files.sha256(self.folder / name)) for name in (SUMS, SIGNATURE))
        return [(path, f"{self.version.folder}/{name}", digest) for path, name, digest in [first, *listed, last]]


Part = Callable[[image.Release, Path], object]
"""Writes files about a release into a version's folder."""


def make(release: image.Release, target: Path, key: gpg.Key, parts: Sequence[Part] = ()) -> Bundle:
    """Put a version's files together in target, in place of an earlier try. parts: what writes further ones."""
    with files.whole_folder(target) as scratch:
        for entry in release.manifest["files"]:
            # The disks are large, and nobody writes to either name.
            os.link(release.folder / str(entry["name"]), scratch / str(entry["name"]))
        verdict = verify.verdict_path(release.main)
        for source, name in (
            (release.folder / image.MANIFEST, image.MANIFEST),
            (verdict, VERDICT),
            (verdict.with_suffix(".xml"), REPORT),
        ):
            files.write(scratch / name, source.read_text(encoding="utf-8"))
        for part in parts:
            part(release, scratch)
        lines = [f"{files.sha256(path)}  {path.name}\n" for path in sorted(scratch.iterdir())]
        files.write(scratch / SUMS, "".join(lines))
        key.detach(scratch / SUMS, scratch / SIGNATURE)
    return load(release, target)


def load(release: image.Release, folder: Path) -> Bundle:
    """The bundle in a folder."""
    rows = parse_sums((folder / SUMS).read_text(encoding="utf-8"))
    listed = tuple(File(name, (folder / name).stat().st_size, digest) for name, digest in rows.items())
    version = Version.of(release.manifest, listed)
    return Bundle(folder, version, files.sha256(folder / SUMS))


def parse_sums(text: str) -> dict[str, str]:
    """Name to sha256 of the lines that sha256sum(1) writes. Raises ValueError."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        digest, gap, name = line.partition("  ")
        if len(digest) != 64 or not gap or "/" in name or not name or name.startswith(".") or name in found:
            raise ValueError(f"{line[:100]!r} is no line of checksums")
        found[name] = digest
    return found
