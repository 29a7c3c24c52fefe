"""What a manifest records of a build so that it can be done again, and the reading of it.

A manifest may come from a store, so nothing of it is believed: every name has a pattern, every file a sha256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from foundry import apt, archive, config, deb, files, stages
from foundry.config import Config, Setting
from foundry.errors import ConfigError
from foundry.settings import Digest, ImageName, PackageName, Uri, Version
from foundry.workspace import Workspace

FORMAT = 2
LOCAL = ("archive.", "build.", "verify.", "consul.path", "consul.signed_by", "postgresql.signed_by")
"""Settings that say where things are and on what they are built, but not what is built."""
_FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~%-]*$", max_length=250)]
_Arch = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
REVISION = r"^[A-Za-z0-9][A-Za-z0-9._/+-]*$"
"""What is taken for the name of the sources' revision."""


class _Part(BaseModel):
    """A part of a manifest; what else is in it plays no part in a rebuild."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Package(_Part):
    name: PackageName
    version: Version
    arch: _Arch
    sha256: Digest


class _Fetched(_Package):
    size: int

    def package(self) -> apt.Package:
        filename = apt.pool_name(self.name, self.version, self.arch)
        return apt.Package(self.name, self.version, self.arch, filename, "", self.sha256, self.size)


class _Source(_Part):
    uri: Uri
    suite: PackageName
    components: list[PackageName]
    debian: bool


class _File(_Part):
    name: _FileName
    sha256: Digest


class _Base(_Part):
    sha256: Digest


class _Inputs(_Part):
    base: _Base
    debs: list[_File]
    sources: dict[str, str]
    commit: Annotated[str, StringConstraints(pattern=REVISION)] | None


class _Rebuild(_Part):
    format: Literal[2]
    base: list[_Fetched]
    buildd: list[_Fetched]
    common: list[PackageName]
    archives: Annotated[list[_Source], Field(min_length=1)]
    repository: Digest
    program: dict[str, str]


class Manifest(_Part):
    """The parts of a manifest that a rebuild needs."""

    name: ImageName
    version: _FileName
    built: str
    files: Annotated[list[_File], Field(min_length=1)]
    packages: list[_Package]
    wheels: list[_File]
    inputs: _Inputs
    tools: dict[str, str]
    configuration: dict[str, Any]
    rebuild: _Rebuild


@dataclass(frozen=True)
class Recorded:
    """A manifest that can be built again: its path, its sha256, what is in it, its configuration as it holds here."""

    path: Path
    sha256: str
    manifest: Manifest
    config: Config

    @property
    def consul(self) -> _File | None:
        """Consul's .deb, if the image has one."""
        own = ("patroni-venv_", "patroni-node_")
        return next((row for row in self.manifest.inputs.debs if not row.name.startswith(own)), None)

    def sources(self) -> tuple[apt.Source, ...]:
        """The archives of the image, with the keys that lie on this host."""
        found = []
        for row in self.manifest.rebuild.archives:
            own = self.config.postgresql if row.suite.endswith("-pgdg") else self.config.consul
            key = apt.DEBIAN_KEYRING if row.debian else str(own.signed_by)
            found.append(apt.Source(row.uri, row.suite, tuple(row.components), key))
        return tuple(found)


def of(packages: archive.Archive, program: Mapping[str, str]) -> dict[str, Any]:
    """What the manifest of a build records for a rebuild. program: the digests of the code that made it."""
    return {
        "format": FORMAT,
        "base": [_row(p) for p in packages.base],
        "buildd": [_row(p) for p in packages.buildd],
        "common": [p.name for p in packages.common],
        "archives": [
            {
                "uri": s.uri,
                "suite": s.suite,
                "components": list(s.components),
                "debian": s.signed_by == apt.DEBIAN_KEYRING,
            }
            for s in packages.sources
        ],
        "repository": stages.output_digest(packages.folder, "Release"),
        "program": dict(program),
    }


def _row(package: apt.Package) -> dict[str, Any]:
    names = ("name", "version", "arch", "sha256", "size")
    return {name: getattr(package, name) for name in names}


def sources(workspace: Workspace) -> dict[str, str]:
    """The files of the project that become part of an image, as tree_digests gives them."""
    parts = [workspace.debian, workspace.node_program, workspace.files, workspace.templates]
    return files.tree_digests([*parts, workspace.packer, workspace.requirements], workspace.root)


def load(path: Path, image: str, overrides: Iterable[Setting], workspace: Workspace) -> Recorded:
    """Read a manifest, or the one in a folder, and its configuration with overrides on top.

    image: the name that the user gave, "" for none.
    Raises ConfigError for what is no manifest, for one that records too little, and for options that contradict it.
    """
    path = path / "manifest.json" if path.is_dir() else path
    try:
        if path.stat().st_size > files.LARGEST_JSON or not path.is_file():
            raise ValueError
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise ConfigError(f"--from {path}: cannot be read: {reason}", hint=_WANTED) from error
    if not isinstance(value, dict) or "inputs" not in value or "configuration" not in value:
        raise ConfigError(f"--from {path}: this is no manifest of an image", hint=_WANTED)
    kind = value["rebuild"].get("format") if isinstance(value.get("rebuild"), dict) else None
    if kind != FORMAT:
        older = "it was built before manifests recorded every package" if kind is None else f"its format is {kind}"
        raise ConfigError(
            f"--from {path}: this version cannot be built again: {older}",
            hint="a version that this program builds can" if kind is None else "use the Patroni Foundry that built it",
        )
    try:
        manifest = Manifest.model_validate(value)
    except ValidationError as error:
        rows = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ConfigError(
            f"--from {path}: the manifest is damaged", details="\n".join(rows[:5]), hint=_WANTED
        ) from error
    if image and image != manifest.name:
        raise ConfigError(
            f"--image {image}: the manifest of --from is of {manifest.name}", hint="leave one of the two out"
        )
    return Recorded(path, files.sha256_text(text), manifest, _config(manifest, path, overrides, workspace))


_WANTED = "give the manifest.json that lies beside an image, in build/images/… or in a store"


def _config(manifest: Manifest, path: Path, overrides: Iterable[Setting], workspace: Workspace) -> Config:
    given = list(overrides)
    wrong = [s for s in given if not s.key.startswith(LOCAL)]
    if wrong:
        raise ConfigError(
            f"{wrong[0].source} {wrong[0].key}: --from builds what its manifest records, and this would change it",
            hint=f"with --from may be set: {', '.join(f'{key}…' if key.endswith('.') else key for key in LOCAL)}",
        )
    known = json.loads(json.dumps(manifest.configuration))
    for settings in known.get("images", {}).values():
        if isinstance(settings.get("disk_size"), int):
            settings["disk_size"] = f"{settings['disk_size'] // 1024**2}MiB"
    if manifest.name not in known.get("images", {}):
        raise ConfigError(f"--from {path}: its configuration has no image {manifest.name}", hint=_WANTED)
    return config.recorded(known, path, given, workspace.config.parent)


def check_sources(found: Recorded, program: Mapping[str, str], workspace: Workspace) -> None:
    """Raise ConfigError unless this checkout is what the version was built from, naming what differs."""
    manifest = found.manifest
    differ = _differences(manifest.inputs.sources, sources(workspace))
    code = _differences(manifest.rebuild.program, program)
    differ += [f"foundry/{row.removeprefix('recipe ')}" for row in code]
    if not differ:
        return
    commit = manifest.inputs.commit or ""
    match = re.fullmatch(r"(\S+?)(-dirty)?", commit)
    hint = "get the sources that made it: the manifest names no commit"
    if match:
        hint = f"git checkout {match[1]}"
        if match[2]:
            hint += "   (it was built from that commit with changes on top, which no commit holds)"
    more = [f"and {len(differ) - 12} more"] if len(differ) > 12 else []
    raise ConfigError(
        f"--from {found.path}: this checkout is not what {manifest.name} {manifest.version} was built from",
        details="\n".join([*differ[:12], *more]),
        hint=hint,
    )


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    def word(name: str) -> str:
        return "is missing here" if name not in new else "is new here" if name not in old else "differs"

    return [f"{name}: {word(name)}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def locks(workspace: Workspace) -> list[Path]:
    """The lock files of Python packages that an image is made with."""
    return [workspace.requirements / name for name in deb.LOCKS]
