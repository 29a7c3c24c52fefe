"""What is written about an image when it is published: evidence, contents, origin, changes, and a page of it all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from foundry import evidence, files, gpg, image, verify
from foundry.errors import CorruptArtifact
from foundry.publish import bundle, contents, diff, formats, page, provenance, sbom_check
from foundry.publish.sbom_check import CYCLONEDX, SPDX
from foundry.publish.version import File, Version
from foundry.workspace import Workspace

PROVENANCE, CHANGES = "provenance.json", "changes"
# These come after the statement of the others' origin, so it cannot speak of them.
LATER = {PROVENANCE, page.PAGE, bundle.SUMS, bundle.SIGNATURE}


@dataclass(frozen=True)
class Documents:
    """What they are made with. old: the version that the channel points at. builder: a URI for who has built it."""

    workspace: Workspace
    key: gpg.Key
    builder: str
    old: Version | None

    def write(self, release: image.Release, folder: Path) -> None:
        """Write all of them into a version's folder. Raises CorruptArtifact, FoundryError and what their parts do."""
        # It takes a second or two, which other tasks need not wait for.
        from foundry.publish import sbom

        verdict_path = verify.verdict_path(release.main)
        verdict, boots = verify.load(verdict_path), evidence.load(evidence.path(verdict_path, evidence.BOOT))
        if verdict is None or boots is None:
            raise CorruptArtifact(f"{verdict_path} went away while it was published", hint="run it again")
        for kind in evidence.KINDS:
            files.write(folder / kind, evidence.path(verdict_path, kind).read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory(dir=_made(self.workspace.work), prefix="contents.") as name:
            scratch = Path(name)
            found = contents.read(release.main, release.manifest, scratch)
            sbom.write(found, folder)
            changes = self._changes(release, folder)
            said = provenance.statement(release.manifest, _files(folder), self.builder, verdict.ended)
            provenance.write(said, self.key, folder / PROVENANCE, scratch)
        licences = {c.name: c.licence.expression or "" for c in found.components if c.licence.expression}
        text = page.render(
            version_of(release, folder),
            verdict=verdict,
            boot=boots,
            console=(folder / evidence.CONSOLE).read_text(encoding="utf-8"),
            diff=changes,
            launching=self.workspace.launching.read_text(encoding="utf-8"),
            licences=licences,
            fingerprint=self.key.fingerprint,
            provenance=said,
        )
        files.write(folder / page.PAGE, text)

    def _changes(self, release: image.Release, folder: Path) -> diff.Diff | None:
        new = version_of(release, folder)
        found = diff.between(self.old, new) if self.old else None
        files.write(folder / f"{CHANGES}.md", diff.changelog(new, found))
        files.write(folder / f"{CHANGES}.json", json.dumps(found.as_json() if found else None, indent=1) + "\n")
        return found


def version_of(release: image.Release, folder: Path) -> Version:
    """The version as far as its folder holds it."""
    return Version.of(release.manifest, _files(folder))


def _files(folder: Path) -> tuple[File, ...]:
    return tuple(File(p.name, p.stat().st_size, files.sha256(p)) for p in sorted(folder.iterdir()))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def expected(version: str, names: Iterable[str]) -> set[str]:
    """The names of what every version has beside its disks. names: those that it has, since some go with a qcow2."""
    by_itself = {image.MANIFEST, bundle.VERDICT, bundle.REPORT, *evidence.KINDS}
    written = {CYCLONEDX, SPDX, PROVENANCE, f"{CHANGES}.md", f"{CHANGES}.json", page.PAGE}
    return by_itself | written | formats.expected(version, names)


def problems(folder: Path, keys: Path, scratch: Path) -> list[str]:
    """What does not belong together in a version's folder, whose files are those that its checksums name.

    Raises BadSignature where the statement of its origin is not signed with one of keys.
    """
    manifest = json.loads((folder / image.MANIFEST).read_text(encoding="utf-8"))
    said = provenance.opened(folder / PROVENANCE, keys, scratch)
    present = [f for f in _files(folder) if f.name not in LATER]
    return [
        *sbom_check.wrong(folder / CYCLONEDX, folder / SPDX, manifest),
        *provenance.wrong(said, present, manifest),
        *formats.problems(folder, manifest, keys, scratch),
    ]
