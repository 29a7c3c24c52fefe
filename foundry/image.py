"""The image stage: the formats that people launch, a manifest of everything in them, and checksums.

The manifest binds each file's sha256 to every input: packages with version and sha256, wheels, tools, stage keys.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from debian.deb822 import Deb822

from foundry import (
    apt,
    archive,
    base,
    bootstrap,
    deb,
    disk,
    epoch,
    exclusions,
    ext4,
    files,
    golden,
    packer,
    recorded,
    run,
    sandbox,
    stages,
    threads,
    wheels,
)
from foundry.config import Config
from foundry.errors import ConfigError, ToolMissing
from foundry.workspace import Workspace

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
CLUSTER = "256k"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~%-]{0,249}")
TOOLS = {
    "qemu-img": ["qemu-img", "--version"],
    "qemu-system-x86_64": ["qemu-system-x86_64", "--version"],
    "mmdebstrap": ["mmdebstrap", "--version"],
    "apt": ["apt-get", "--version"],
    "packer": ["packer", "version"],
    "mke2fs": ["mke2fs", "-V"],
    "xorriso": ["xorriso", "--version"],
}


@dataclass(frozen=True)
class Release:
    """A built image: its folder, manifest and files. The first file is the one that is verified."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def main(self) -> Path:
        return self.folder / str(self.manifest["files"][0]["name"])

    @property
    def digest(self) -> str:
        return str(self.manifest["files"][0]["sha256"])


@dataclass(frozen=True)
class Parts:
    """What the earlier stages made of one image."""

    packages: archive.Archive
    debs: deb.Debs
    base: base.Base
    sealed: golden.Golden


def build(name: str, config: Config, parts: Parts, workspace: Workspace) -> Release:
    """Convert the sealed disk, or find it converted. Raises CommandFailed, CorruptArtifact."""
    image, sealed = config.images[name], parts.sealed
    inputs = {
        "sealed disk": stages.output_digest(sealed.folder, golden.DISK),
        "name": name,
        "formats": ",".join(image.formats),
        **stages.recipe(recorded, sys.modules[__name__]),
    }
    decision = stages.decide(workspace, "images", inputs)

    def act(scratch: Path) -> None:
        source = sealed.disk if sealed.fresh else stages.checked(sealed.folder, golden.DISK)
        stamp = datetime.now(UTC)
        version = f"{stamp:%Y%m%d}-{decision.key[:8]}"
        # qcow2 first: the verified file is the one that people launch.
        wanted = sorted(image.formats, key=lambda kind: kind != "qcow2")
        made, installed, tools = threads.together(
            lambda: [_convert(source, kind, scratch / f"{name}-{version}.{kind}") for kind in wanted],
            lambda: _installed(source, scratch / "dpkg", parts),
            _tools,
        )
        manifest = {
            "name": name,
            "version": version,
            "built": stamp.isoformat(timespec="seconds"),
            "suite": image.suite,
            "files": [{"name": p.name, "sha256": files.sha256(p), "size": p.stat().st_size} for p in made],
            "disk_size": image.disk_size,
            "packages": installed,
            "wheels": _wheels(workspace),
            "inputs": _inputs(parts, workspace),
            "configuration": config.model_dump(mode="json", exclude={"publish"}),
            "tools": tools,
            "rebuild": recorded.of(parts.packages, program()),
        }
        files.write_json(scratch / MANIFEST, manifest)
        listed = [*made, scratch / MANIFEST]
        files.write(scratch / SUMS, "".join(f"{files.sha256(p)}  {p.name}\n" for p in listed))

    folder = stages.perform(workspace, decision, act)
    files.write_json(_pointer(workspace, name), {"folder": folder.name})
    return load(folder)


def program() -> dict[str, str]:
    """The digests of the code that makes an image."""
    made = (apt, archive, base, bootstrap, deb, disk, epoch, exclusions, ext4, golden)
    rooms = (*made, packer, recorded, sandbox, wheels)
    return stages.recipe(*rooms, sys.modules[__name__])


def load(folder: Path) -> Release:
    """The release in a folder, which may be anybody's. Raises ConfigError where there is none."""
    manifest = files.read_json(folder / MANIFEST)
    if not manifest:
        raise ConfigError(f"{folder} holds no image with a manifest", hint="`./inv build-image` makes one")
    rows = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(rows, list) or not rows or not all(_is_file(row) for row in rows):
        raise ConfigError(f"{folder / MANIFEST}: what it lists as files are no names and digests of files beside it")
    return Release(folder, manifest)


def _is_file(row: object) -> bool:
    """Whether a row of a manifest names a file that can only lie beside it."""
    if not isinstance(row, dict):
        return False
    name, digest = row.get("name"), row.get("sha256")
    return bool(isinstance(name, str) and _NAME.fullmatch(name) and isinstance(digest, str))


def newest(workspace: Workspace, name: str) -> Release:
    """The release that the last build of an image made. Raises ConfigError where there is none."""
    pointer = files.read_json(_pointer(workspace, name)) or {}
    return load(workspace.images / str(pointer.get("folder", "none")))


def _pointer(workspace: Workspace, name: str) -> Path:
    return workspace.images / f"{name}.json"


def _convert(source: Path, kind: str, target: Path) -> Path:
    # zstd: 3 % smaller than zlib and, on several threads, eight times faster. Large clusters: ADR 18.
    compressed = ["-c", "-o", f"compression_type=zstd,cluster_size={CLUSTER}"] if kind == "qcow2" else []
    run.run(
        ["qemu-img", "convert", "-m", "16", "-W", "-f", "raw", "-O", kind, *compressed, source, target],
        name="convert",
    )
    return target


def _installed(raw: Path, scratch: Path, parts: Parts) -> list[dict[str, str]]:
    """Every package that dpkg says is in the image, with the sha256 of the .debs that it came from."""
    scratch.mkdir()
    where = f"{raw}?offset={disk.root_offset(raw)}"
    status = scratch / "status"
    run.run(["debugfs", "-R", f"dump /var/lib/dpkg/status {status}", where], name="dpkg-status")
    digests = {(p.name, p.version.replace("%3a", ":")): p.sha256 for p in parts.packages.base}
    for path in parts.debs.all():
        fields = Deb822(run.capture(["dpkg-deb", "--field", path], name="dpkg-deb"))
        digests[fields["Package"], fields["Version"]] = files.sha256(path)
    found = []
    with status.open(encoding="utf-8") as stream:
        for row in Deb822.iter_paragraphs(stream, use_apt_pkg=False):
            if row["Status"].endswith(" installed"):
                key = (row["Package"], row["Version"])
                found.append({"name": key[0], "version": key[1], "arch": row["Architecture"], "sha256": digests[key]})
    status.unlink()
    scratch.rmdir()
    return found


def _wheels(workspace: Workspace) -> list[dict[str, Any]]:
    """Each locked Python file that the packages were built with; shipped: whether it is in patroni-venv itself."""
    known = files.read_json(workspace.wheels / "known.json") or {}
    build, venv = (
        {d for digests in wheels.locked(workspace.requirements / lock).values() for d in digests} for lock in deb.LOCKS
    )
    rows = [(name, files.sha256(workspace.wheels / name)) for name in sorted(known.values())]
    return [{"name": n, "sha256": d, "shipped": d in venv} for n, d in rows if d in build | venv]


def _inputs(parts: Parts, workspace: Workspace) -> dict[str, Any]:
    return {
        "archive": parts.packages.key,
        "base": {"key": parts.base.key, "sha256": parts.base.digest},
        "packer": {"key": parts.sealed.key},
        "debs": [{"name": p.name, "sha256": files.sha256(p)} for p in parts.debs.all()],
        "sources": recorded.sources(workspace),
        "commit": _commit(workspace),
    }


def _commit(workspace: Workspace) -> str | None:
    """What git calls the sources; None where nobody can tell: no git, no repository, one that is damaged or another's.

    A build needs no git: sources are brought to hosts in other ways too.
    """
    if not (workspace.root / ".git").exists():
        return None
    try:
        answer = run.run(
            ["git", "-C", workspace.root, "describe", "--always", "--dirty", "--abbrev=40"],
            name="git",
            # Else a damaged repository would be passed over for one in a folder above.
            env={"GIT_CEILING_DIRECTORIES": str(workspace.root.resolve().parent)},
            check=False,
        )
    except ToolMissing:
        return None
    said = answer.output.strip()
    return said if answer.returncode == 0 and re.fullmatch(recorded.REVISION, said) else None


def _tools() -> dict[str, str]:
    found = {name: run.capture(command, name="versions").splitlines()[0].strip() for name, command in TOOLS.items()}
    return found | {"python": sys.version.split()[0], "kernel": os.uname().release}
