"""Everything inside an image, read from the image's own bytes and compared with what its manifest says.

Components are Debian packages, and the Python distributions inside the package patroni-venv. Consul is a Debian
package wherever it comes from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from debian.deb822 import Deb822, PkgRelation
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from foundry import files, tree
from foundry.errors import CorruptArtifact
from foundry.publish import licences
from foundry.publish.licences import Licence

VENV_PACKAGE = "patroni-venv"
VENV = "usr/lib/patroni-venv"
OWN_SOURCE = "patroni-foundry"
OWN_SUPPLIER = "Patroni Foundry developers"
# Where else pip puts modules on Debian: what lies there belongs to no package.
_STRAY = "usr/local/lib"
_DUMPED = ("/var/lib/dpkg", "/usr/share/doc", f"/{VENV}", f"/{_STRAY}")
_LARGEST = 2**28  # of the files that are read here, whole
# Debian 12 on amd64, whatever this program itself runs on: PEP 508, "Environment Markers".
_TARGET = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.2",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}


@dataclass(frozen=True)
class Component:
    """One thing inside an image.

    arch: Debian's; "" for a Python distribution. purl: names it, uniquely within an image (package-url/purl-spec).
    file, sha256: the .deb, wheel or source release that it was installed from. supplier: who handed that out, "" where
    it is not known. maintainer: as its own metadata has it. source: source package and version of a Debian package.
    inside: the name of the Debian package that carries a Python distribution. needs: purls of the components that its
    own metadata says it depends on, as they are met in this image.
    """

    kind: Literal["deb", "pypi"]
    name: str
    version: str
    arch: str
    purl: str
    file: str
    sha256: str
    licence: Licence
    supplier: str = ""
    maintainer: str = ""
    homepage: str = ""
    summary: str = ""
    source: str = ""
    inside: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What one image holds, components sorted by kind and name. manifest: the image's own."""

    manifest: Mapping[str, Any]
    components: tuple[Component, ...]

    @property
    def digest(self) -> str:
        """The sha256 of the disk that was verified."""
        return str(self.manifest["files"][0]["sha256"])


def read(image: Path, manifest: Mapping[str, Any], scratch: Path) -> Contents:
    """What is inside the disk of an image.

    scratch: a folder on a file system with room for the raw disk (about 1 GB); it is left as it was.
    Raises CorruptArtifact when the bytes are not the manifest's, or hold something else than it says.
    """
    listed = next((row for row in manifest["files"] if row["name"] == image.name), None)
    if listed is None or files.sha256(image) != listed["sha256"]:
        raise CorruptArtifact(f"{image} is not a file that its manifest describes", hint="build the image again")
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".contents.") as folder:
        disk = image
        if image.suffix != ".raw":
            disk = tree.raw(image, image.suffix.lstrip("."), Path(folder) / "disk.raw")
        root = Path(folder) / "root"
        for name in _DUMPED:
            tree.dump(disk, name, root / name.strip("/").rpartition("/")[0], largest=_LARGEST)
        # What a link leads to is published as the image's.
        tree.confine(root)
        return found(root, manifest)


def found(root: Path, manifest: Mapping[str, Any]) -> Contents:
    """What is inside an image whose files lie below root. Raises CorruptArtifact where the manifest says otherwise."""
    rows = list(_installed(root))
    infos = sorted((root / VENV).glob("lib/python3*/site-packages/*.dist-info"))
    wheels = {released(row["name"]): row for row in manifest["wheels"]}
    wrong = _disagreements(rows, infos, wheels, manifest)
    wrong += [f"{p.relative_to(root)} is in no package" for p in sorted((root / _STRAY).rglob("*.dist-info"))]
    if wrong:
        raise CorruptArtifact(
            f"{manifest['name']} {manifest['version']}: what is in the image is not what its manifest says",
            details="\n".join(wrong),
            hint="build the image again; if it happens twice, something other than dpkg installs software into it",
        )
    components = [*_packages(root, rows, manifest), *_modules(infos, wheels, manifest)]
    return Contents(manifest, tuple(sorted(components, key=lambda c: (c.kind, c.name, c.arch))))


def _installed(root: Path) -> Iterator[Deb822]:
    with (root / "var/lib/dpkg/status").open(encoding="utf-8") as stream:
        for row in Deb822.iter_paragraphs(stream, use_apt_pkg=False):
            if row["Status"].endswith(" installed"):
                yield row


def released(name: str) -> tuple[str, Version]:
    """Name and version that the file name of a wheel or source release stands for. Raises ValueError."""
    if name.endswith(".whl"):
        return parse_wheel_filename(name)[:2]
    return parse_sdist_filename(name)


def _disagreements(
    rows: Sequence[Deb822],
    infos: Sequence[Path],
    wheels: Mapping[tuple[str, Version], Mapping[str, Any]],
    manifest: Mapping[str, Any],
) -> list[str]:
    listed = {(row["name"], row["arch"]): row["version"] for row in manifest["packages"]}
    wrong = _compare(listed, {(row["Package"], row["Architecture"]): row["Version"] for row in rows})
    # What only built the others is in the manifest, too.
    shipped = {(name, "Python"): version for (name, version), row in wheels.items() if row.get("shipped", True)}
    known = (PathDistribution(info) for info in infos)
    return wrong + _compare(shipped, {(canonicalize_name(d.name), "Python"): Version(d.version) for d in known})


def _compare(listed: Mapping[tuple[str, str], object], present: Mapping[tuple[str, str], object]) -> list[str]:
    def say(version: object, name: str, kind: str) -> str:
        return f"has {name} {version} ({kind})" if version else f"has no {name} ({kind})"

    return [
        f"the manifest {say(listed.get(key), *key)}, the image {say(present.get(key), *key)}"
        for key in sorted(listed.keys() | present.keys())
        if listed.get(key) != present.get(key)
    ]


# Debian packages


@dataclass(frozen=True)
class _Origin:
    """Who hands a package out. vendor: the purl's namespace."""

    vendor: str
    supplier: str
    distro: str
    repository: str = ""


def _origin(name: str, version: str, source: str, manifest: Mapping[str, Any]) -> _Origin:
    settings, suite = manifest["configuration"], str(manifest["suite"])
    if source == OWN_SOURCE:
        return _Origin("patroni-foundry", OWN_SUPPLIER, suite)
    consul, postgresql = settings["consul"], settings["postgresql"]
    if name == "consul" and consul["source"] == "debian":
        return _Origin("debian", "Debian", str(consul["suite"]))
    if name == "consul" and consul["source"] == "hashicorp":
        return _Origin("hashicorp", "HashiCorp", suite, str(consul["uri"] or ""))
    if name == "consul" and consul["source"] == "file":
        # A file of the user's own: nothing says whose package it is.
        return _Origin("local", "", suite)
    # Every package of PostgreSQL's own archive has that word in its version, for each release of Debian another one.
    if postgresql["source"] == "pgdg" and ".pgdg" in version:
        return _Origin("pgdg", "PostgreSQL Global Development Group", suite, str(postgresql["uri"] or ""))
    return _Origin("debian", "Debian", suite)


def purl_of(row: Mapping[str, Any], manifest: Mapping[str, Any], source: str = "") -> str:
    """The purl of a package in a manifest. source: its source package, which tells this project's own from Debian's."""
    name, version = str(row["name"]), str(row["version"])
    origin = _origin(name, version, source, manifest)
    # An empty qualifier is left out, as purl-spec says.
    qualifiers = {"arch": str(row["arch"]), "distro": origin.distro, "repository_url": origin.repository}
    return PackageURL("deb", origin.vendor, name, version, qualifiers=qualifiers).to_string()


def deb_file(name: str, version: str, arch: str) -> str:
    """The file name of a .deb as Debian's archive has it: an epoch is no part of it."""
    return f"{name}_{version.rpartition(':')[2]}_{arch}.deb"


def _source(row: Deb822) -> tuple[str, str]:
    """Source package and its version, where the binary package has another one in brackets (deb-control(5), Source)."""
    name, _, version = row.get("Source", row["Package"]).partition(" ")
    return name, version.strip("()") or row["Version"]


def _packages(root: Path, rows: Sequence[Deb822], manifest: Mapping[str, Any]) -> Iterator[Component]:
    digests = {(row["name"], row["arch"]): str(row["sha256"]) for row in manifest["packages"]}
    purls = {
        row["Package"]: purl_of(
            {"name": row["Package"], "version": row["Version"], "arch": row["Architecture"]}, manifest, _source(row)[0]
        )
        for row in rows
    }
    providers = _providers(rows)
    for row in rows:
        name, version, arch = row["Package"], row["Version"], row["Architecture"]
        source, source_version = _source(row)
        needs = {purls[other] for other in _depends(row, providers)} - {purls[name]}
        yield Component(
            kind="deb",
            name=name,
            version=version,
            arch=arch,
            purl=purls[name],
            file=deb_file(name, version, arch),
            sha256=digests[name, arch],
            licence=licences.of_package(root, name, source),
            supplier=_origin(name, version, source, manifest).supplier,
            maintainer=row["Maintainer"],
            homepage=row.get("Homepage", ""),
            summary=row.get("Description", "").partition("\n")[0],
            source=f"{source} {source_version}",
            needs=tuple(sorted(needs)),
        )


def _relations(row: Deb822, field: str) -> list[list[Any]]:
    return PkgRelation.parse_relations(row[field]) if row.get(field) else []


def _providers(rows: Iterable[Deb822]) -> dict[str, list[str]]:
    """Each name that a relation may ask for, with the installed packages that have it: itself first."""
    known: dict[str, list[str]] = {row["Package"]: [row["Package"]] for row in rows}
    for row in rows:
        for group in _relations(row, "Provides"):
            for virtual in group:
                known.setdefault(virtual["name"], []).append(row["Package"])
    return known


def _depends(row: Deb822, providers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The installed packages that meet Pre-Depends and Depends: of alternatives the first that is there.

    dpkg has seen to the versions. What only a virtual package's name asks for is met by each that provides it.
    """
    for field in ("Pre-Depends", "Depends"):
        for group in _relations(row, field):
            names = [alternative["name"] for alternative in group if alternative["name"] in providers]
            if names:
                known = providers[names[0]]
                yield from known[:1] if known[0] == names[0] else known


# Python distributions


def _modules(
    infos: Sequence[Path], wheels: Mapping[tuple[str, Version], Mapping[str, Any]], manifest: Mapping[str, Any]
) -> Iterator[Component]:
    known = {str(canonicalize_name(PathDistribution(info).name)): info for info in infos}
    purls = {
        name: PackageURL("pypi", None, name, PathDistribution(info).version).to_string() for name, info in known.items()
    }
    needs = _requirements(known, set(manifest["configuration"]["patroni"]["extras"]))
    for name, info in known.items():
        distribution = PathDistribution(info)
        row = wheels[name, Version(distribution.version)]
        yield Component(
            kind="pypi",
            name=distribution.name,
            version=distribution.version,
            arch="",
            purl=purls[name],
            file=row["name"],
            sha256=row["sha256"],
            licence=licences.of_wheel(info),
            supplier="Python Package Index",
            maintainer=_maintainer(distribution),
            homepage=_homepage(distribution),
            summary=_one(distribution, "Summary"),
            inside=VENV_PACKAGE,
            needs=tuple(sorted(purls[other] for other in needs[name])),
        )


def _requirements(known: Mapping[str, Path], extras: set[str]) -> dict[str, set[str]]:
    """The distributions at hand that each one requires, with the extras that were asked for (PEP 508)."""
    wanted = {name: {""} | (extras if name == "patroni" else set()) for name in known}
    needs: dict[str, set[str]] = {name: set() for name in known}
    left = list(known)
    while left:
        name = left.pop()
        for text in PathDistribution(known[name]).requires or []:
            needed = Requirement(text)
            other = str(canonicalize_name(needed.name))
            if other not in known or not any(
                needed.marker is None or needed.marker.evaluate({**_TARGET, "extra": extra}) for extra in wanted[name]
            ):
                continue
            needs[name].add(other)
            if not needed.extras <= wanted[other]:
                wanted[other] |= needed.extras
                left.append(other)
    return needs


def _one(distribution: PathDistribution, field: str) -> str:
    values = distribution.metadata.get_all(field) or [""]
    text = " ".join(str(values[0]).split())
    return "" if text == "UNKNOWN" else text


def _maintainer(distribution: PathDistribution) -> str:
    for field in ("Maintainer", "Author"):
        name, email = _one(distribution, field), _one(distribution, f"{field}-email")
        if name or email:
            return f"{name} <{email}>" if name and email and "<" not in email else email or name
    return ""


def _homepage(distribution: PathDistribution) -> str:
    """Home-page, else the Project-URL whose label says so (core metadata, "Well-known Project URLs")."""
    urls = [str(text).partition(",") for text in distribution.metadata.get_all("Project-URL") or []]
    labelled = (url.strip() for label, _, url in urls if label.strip().lower() in ("homepage", "home"))
    return next(chain((u for u in [_one(distribution, "Home-page")] if u), labelled), "")
