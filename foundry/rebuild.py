"""Building a version again from what its manifest records: fetch exactly that, and compare what comes out.

What must be equal: our packages, the repository's metadata, the base, every package and wheel, and the files of the
golden image. Its disk is a file system that a machine has written to, so that may differ (docs/reproducibility.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundry import apt, archive, deb, files, image, listing, log, wheels
from foundry.errors import CommandFailed, FetchError, FoundryError
from foundry.recorded import Manifest, Recorded, check_sources, locks
from foundry.workspace import Workspace

RECORD = "rebuild.json"


class NotReproduced(FoundryError):
    """What was built again is not what the manifest records."""

    code = 16


@dataclass(frozen=True)
class Row:
    """One thing that was compared. required: whether a difference is a failure. made: "built" or "reused"."""

    name: str
    equal: bool
    required: bool
    made: str
    detail: str

    def line(self) -> str:
        """The row for a person."""
        word = "equal" if self.equal else "DIFFERS" if self.required else "may differ"
        return f"{self.name}: {word}{' (reused)' if self.made == 'reused' else ''}, {self.detail}"


@dataclass(frozen=True)
class Comparison:
    """What was built again beside what a manifest records. tools: those of this host that are others."""

    version: str
    rows: tuple[Row, ...]
    tools: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether all is equal that must be."""
        return all(row.equal for row in self.rows if row.required)

    def summary(self) -> list[str]:
        """Lines for a person."""
        return [f"rebuilt  {self.version}", *(f"         {row.line()}" for row in self.rows)]

    def write(self, folder: Path, manifest: Recorded) -> None:
        """Record it beside the rebuilt image."""
        known = {"version": self.version, "manifest": manifest.sha256, "equal": self.equal}
        rows = [asdict(row) for row in self.rows]
        files.write_json(folder / RECORD, {**known, "parts": rows, "other_tools": list(self.tools)})

    def insist(self, folder: Path) -> None:
        """Raise NotReproduced unless all is equal that must be. folder: where the rebuilt image is."""
        if self.equal:
            return
        wrong = [row.line() for row in self.rows if row.required and not row.equal]
        tools = f"; other tools than then: {', '.join(self.tools)}" if self.tools else ""
        raise NotReproduced(
            f"the rebuild of {self.version} is not equal to it",
            details="\n".join(wrong),
            hint=f"both are kept: {folder / RECORD} tells all; docs/reproducibility.md has what to look at{tools}",
        )


def prepare(found: Recorded, workspace: Workspace, *, offline: bool) -> archive.Pinned:
    """Bring all that a version was built from to this host, each file of the recorded sha256.

    Raises ConfigError where this checkout is another one, and one FetchError that names all that cannot be had.
    """
    check_sources(found, image.program(), workspace)
    rebuild = found.manifest.rebuild
    base, buildd = (tuple(row.package() for row in rows) for rows in (rebuild.base, rebuild.buildd))
    sources = found.sources()
    with log.stage("recorded", "what the manifest names"):
        missing, consul = _packages(found, sorted({*base, *buildd}), sources, workspace, offline=offline)
        rows = {row.name: row.sha256 for row in found.manifest.wheels}
        missing += wheels.pin(locks(workspace), deb.TARGET_PYTHON, rows, workspace, offline=offline)
        if missing:
            raise _missing(found, missing, offline=offline)
    common = tuple(p for p in base if p.name in rebuild.common)
    return archive.Pinned(base, buildd, sources, consul, common)


def _missing(found: Recorded, missing: Sequence[str], *, offline: bool) -> FetchError:
    manifest = found.manifest
    where = "with --offline" if offline else "by the configured archives"
    snapshot = (
        "an archive of snapshots has them: --set archive.mirror=… --set archive.security_mirror=…, "
        f"as of {manifest.built}; or copy the folders pool and wheels of the build that made it"
    )
    return FetchError(
        f"{manifest.name} {manifest.version}: {len(missing)} recorded files are not kept here, and not given {where}",
        details="\n".join(missing),
        hint=f"run it without --offline; {snapshot}" if offline else snapshot,
    )


def _packages(
    found: Recorded,
    packages: Sequence[apt.Package],
    sources: Sequence[apt.Source],
    workspace: Workspace,
    *,
    offline: bool,
) -> tuple[list[str], Path | None]:
    """Fill the pool; what cannot be had, and Consul's path there."""
    chosen = found.config.images[found.manifest.name]
    lacking = [p for p in packages if not _whole(workspace.pool / p.filename, p.sha256)]
    consul, pin = found.consul, archive.consul_pin(found.config, sources)
    by_apt = _consul_package(found) if "package" in pin else None
    if by_apt and not _whole(workspace.pool / by_apt.filename, by_apt.sha256):
        lacking.append(by_apt)
    if lacking and not offline:
        # apt hangs when the disk fills up under its indexes.
        files.need_space(workspace.build, 300_000_000 + sum(p.size for p in lacking), "recorded")
        try:
            resolver = apt.Resolver(workspace, apt.sources(found.config, chosen.suite), expired=True)
            resolver.update()
            resolver.obtain(lacking)
        except FetchError as error:
            # What is lacking is more than this one error tells.
            log.info(f"{error.brief}; {error.details or ''}".strip("; "))
        lacking = [p for p in lacking if not _whole(workspace.pool / p.filename, p.sha256)]
    missing = [f"{p.name} {p.version} {p.arch} sha256 {p.sha256}" for p in lacking]
    if not consul:
        return missing, None
    if by_apt:
        return missing, workspace.pool / by_apt.filename
    if "package" in pin:
        return [*missing, f"{consul.name} sha256 {consul.sha256}"], None
    path = Path(pin["path"]) if "path" in pin else workspace.pool / pin["name"]
    if not _whole(path, consul.sha256, keep="path" in pin):
        try:
            if offline or "uri" not in pin:
                raise FetchError("offline")
            here = archive.consul_pin(found.config, apt.sources(found.config, chosen.suite))
            apt.fetch_file(here["uri"], path, consul.sha256)
        except (FetchError, CommandFailed):
            missing.append(f"{consul.name} sha256 {consul.sha256}")
    return missing, path


def _consul_package(found: Recorded) -> apt.Package | None:
    row = next((p for p in found.manifest.packages if p.name == "consul"), None)
    if row is None:
        return None
    filename = apt.pool_name(row.name, row.version, row.arch)
    return apt.Package(row.name, row.version, row.arch, filename, "", row.sha256, 0)


def _whole(path: Path, digest: str, *, keep: bool = False) -> bool:
    """Whether a file is the recorded one. Any other is removed, so that it is fetched anew, unless it is the user's."""
    if not path.is_file():
        return False
    if files.sha256(path) == digest:
        return True
    if not keep:
        path.unlink()
    return False


def compare(found: Recorded, release: image.Release, workspace: Workspace) -> Comparison:
    """Put what was built beside what the manifest records, and the files of its disk if that lies beside it.

    Raises CorruptArtifact for a disk that cannot be read.
    """
    made = {record.name: record.outcome for record in log.records()}
    new = Manifest.model_validate(release.manifest)
    return Comparison(
        f"{found.manifest.name} {found.manifest.version}",
        (*_rows(found.manifest, new, made), _golden(found, release, workspace)),
        tuple(_tools(found.manifest.tools, new.tools)),
    )


def _rows(old: Manifest, new: Manifest, made: Mapping[str, str]) -> Iterator[Row]:
    def digest(name: str, stage: str, before: str, after: str, *, required: bool = True) -> Row:
        detail = f"sha256 {before}" if before == after else f"recorded {before}, rebuilt {after}"
        return Row(name, before == after, required, made.get(stage, ""), detail)

    debs = {row.name: row.sha256 for row in new.inputs.debs}
    for row in old.inputs.debs:
        stage = row.name.partition("_")[0]
        yield digest(row.name, stage if stage in made else "archive", row.sha256, debs.get(row.name, "nothing"))
    yield digest("repository metadata", "archive", old.rebuild.repository, new.rebuild.repository)
    yield digest("base disk", "base", old.inputs.base.sha256, new.inputs.base.sha256)
    yield _listed("packages", [p.model_dump() for p in old.packages], [p.model_dump() for p in new.packages])
    yield _listed("wheels", [w.model_dump() for w in old.wheels], [w.model_dump() for w in new.wheels])
    yield digest("golden disk", "images", old.files[0].sha256, new.files[0].sha256, required=False)


def _golden(found: Recorded, release: image.Release, workspace: Workspace) -> Row:
    """The files of both golden images, one by one."""
    name, recorded = "files of the golden image", found.manifest.files[0]
    disk = found.path.parent / recorded.name
    if recorded.sha256 == release.digest:
        return Row(name, True, True, "", "the disks are equal")
    if not disk.is_file() or files.sha256(disk) != recorded.sha256:
        return Row(name, False, False, "", f"not compared: {recorded.name} does not lie beside the manifest")
    log.activity("comparing the files of both images")
    workspace.work.mkdir(parents=True, exist_ok=True)
    old, new = (listing.of(path, workspace.work / "listing") for path in (disk, release.main))
    differ = listing.compare(old, new)
    more = [f"and {len(differ) - 20} more"] if len(differ) > 20 else []
    return Row(name, not differ, True, "", "\n".join([*differ[:20], *more]) or f"{len(new)} of them")


def _listed(name: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Row:
    before, after = ({tuple(row.values()) for row in rows} for rows in (old, new))
    differ = sorted({str(row[0]) for row in before ^ after})
    detail = f"{len(old)} of them" if not differ else ", ".join(differ[:10])
    return Row(name, not differ, True, "", detail)


def _tools(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [f"{name} ({old.get(name)} then, {new.get(name)} now)" for name in new if old.get(name) != new.get(name)]
