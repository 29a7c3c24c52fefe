"""Pages for people: one static HTML file for each version, and one for a store's root, that says what lies there.

They ask nothing of a server and nothing of anybody else's: no script, no font, no picture from elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from foundry import files
from foundry.console import clean, duration
from foundry.errors import FoundryError
from foundry.evidence import Boot
from foundry.publish import diff as diffs
from foundry.publish import timeline
from foundry.publish.version import Version
from foundry.verify import PHASES, Outcome, Verdict

PAGE = "index.html"
"""What a page is called, in a version's folder and in a store's root."""
LAUNCHING = ("Plain QEMU", "libvirt", "Proxmox", "OpenStack and other clouds")
"""The sections of docs/launching.md whose commands are on a page."""
BOOTS = dict(zip(PHASES, ("First boot", "After a restart"), strict=True))
HOST = {"cpu": "Processor", "cpus": "Processors", "kernel": "Kernel", "qemu": "QEMU", "system": "System"}
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
_SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NEWEST_DISK = re.compile(r'\$\(ls -t "\$PWD"/build/images/\S+ \| head -n 1\)')
_SOME_DISK = re.compile(r"(?:build/images/\*/)?[a-z0-9-]+-…\.qcow2")
_HEAD_PACKAGES = {"postgresql-15": "PostgreSQL", "consul": "Consul", "cloud-init": "cloud-init", "systemd": "systemd"}


@dataclass(frozen=True)
class Listed:
    """A version in the list of a store's root. built: UTC. size: bytes of its first disk. checks: how many passed."""

    version: str
    built: datetime
    size: int
    checks: int


@dataclass(frozen=True)
class Group:
    """Checks of one file in one boot."""

    title: str
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> int:
        return sum(o.outcome == "passed" for o in self.outcomes)

    @property
    def seconds(self) -> float:
        return sum(o.seconds for o in self.outcomes)


@dataclass(frozen=True)
class Piece:
    """A paragraph, in which only `code` is marked, or the text of a block of commands."""

    text: str
    code: bool


def render(
    version: Version,
    *,
    verdict: Verdict,
    boot: Sequence[Boot],
    console: str,
    diff: diffs.Diff | None,
    launching: str,
    licences: Mapping[str, str] | None = None,
    fingerprint: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """The page of a version: the same values give the same bytes, and none of them becomes markup.

    boot, console: the evidence beside the verdict. diff: from the version before it; None for the first one.
    launching: the text of docs/launching.md, whose commands are shown with this version's file. licences: by the name
    of a Debian package, or by the file name of a wheel. fingerprint: of the key that signs. provenance: the in-toto
    Statement, without its envelope (slsa.dev/spec/v1.0/provenance). Raises FoundryError where launching lacks a part.
    """
    manifest = version.manifest
    disks = {str(row["name"]) for row in manifest["files"]}
    licences = licences or {}
    packages = sorted(manifest["packages"], key=lambda p: (str(p["name"]), str(p["arch"])))
    # Others were needed to build with, and are in no image.
    shipped = [str(w["name"]) for w in manifest["wheels"] if w.get("shipped", True)]
    wheels = [(*diffs.python_package(name), name) for name in shipped]
    known = [licences[k] for k in (*(str(p["name"]) for p in packages), *(w[2] for w in wheels)) if k in licences]
    return _filled(
        "page.html.j2",
        version=version,
        files=sorted((f for f in version.files if f.name != PAGE), key=lambda f: (f.name not in disks, f.name.lower())),
        software=_software(packages, wheels),
        packages=packages,
        wheels=sorted(wheels),
        licences=licences,
        licence_counts=sorted(Counter(known).items(), key=lambda item: (-item[1], item[0])),
        verdict=verdict,
        passed=sum(o.outcome == "passed" for o in verdict.outcomes),
        checks=checks(verdict.outcomes),
        boots=[_boot(b) for b in boot],
        console=console,
        console_lines=len(console.splitlines()),
        diff=diff,
        changes=[(n, diffs.sentence(n, changes), changes) for n, changes in diff.parts() if changes] if diff else [],
        launch=launch(launching, version),
        fingerprint=fingerprint,
        built_by=_built_by(provenance) if provenance else [],
    )


def index(
    images: Mapping[str, Sequence[Listed]],
    channels: Mapping[str, Mapping[str, str]],
    *,
    fingerprint: str | None = None,
) -> str:
    """The page of a store's root.

    images: the versions of each image, as they shall stand there. channels: for each image, channel to version.
    """
    ordered = [(name, channels.get(name, {}), list(images[name])) for name in sorted(images)]
    return _filled("root.html.j2", images=ordered, fingerprint=fingerprint)


def checks(outcomes: Iterable[Outcome]) -> list[tuple[str, list[Group]]]:
    """The checks by boot and by the file that they are of, in the order in which they ran."""
    found = []
    for phase, ran in groupby(outcomes, key=lambda o: o.phase):
        files_of = groupby(ran, key=lambda o: o.name.partition("::")[0])
        groups = [Group(_words(file.removesuffix(".py")).capitalize(), tuple(members)) for file, members in files_of]
        found.append((BOOTS.get(phase, phase), groups))
    return found


def _check(name: str) -> str:
    """What a check is about, of its name: "test_boot.py::test_no_unit_failed" is "no unit failed"."""
    return _words(name.partition("::")[2] or name)


def _words(name: str) -> str:
    name, bracket, parameter = name.partition("[")
    return name.removeprefix("test_").replace("_", " ") + (f": {parameter.removesuffix(']')}" if bracket else "")


def launch(text: str, version: Version) -> list[tuple[str, list[Piece]]]:
    """What docs/launching.md says of each platform, with the name of this version's qcow2; [] without one."""
    disk = next((f.name for f in version.files if f.name.endswith(".qcow2")), None)
    if disk is None:
        return []
    sections = dict(part.partition("\n")[::2] for part in re.split(r"^## ", text, flags=re.MULTILINE))
    found = []
    for title in LAUNCHING:
        # A function, since a name is no template for what re.sub shall write.
        named = _NEWEST_DISK.sub(lambda _: f"$PWD/{disk}", sections.get(title, ""))
        pieces = _pieces(_SOME_DISK.sub(lambda _: disk, named))
        if not any(piece.code for piece in pieces):
            raise FoundryError(
                f"docs/launching.md has no commands in a section called {title}",
                hint="name the sections in foundry/publish/page.py as they are called there",
            )
        found.append((title, pieces))
    return found


def _pieces(markdown: str) -> list[Piece]:
    found = []
    # A pattern with one group: every second part is the inside of a block of commands.
    for number, part in enumerate(_SHELL.split(markdown)):
        if number % 2:
            found.append(Piece(part.rstrip("\n"), code=True))
        else:
            paragraphs = (" ".join(p.split()) for p in part.split("\n\n"))
            found += [Piece(_LINK.sub(r"\1", p), code=False) for p in paragraphs if p]
    return found


def _software(packages: Iterable[Mapping[str, Any]], wheels: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """What people ask for first: name and version, as far as it is there."""
    versions = {str(p["name"]): str(p["version"]) for p in packages}
    patroni = [("Patroni", version) for name, version, _ in wheels if name == "patroni"]
    kernel = [("Linux", v) for n, v in versions.items() if re.fullmatch(r"linux-image-\d.*", n)]
    named = [(words, versions[name]) for name, words in _HEAD_PACKAGES.items() if name in versions]
    return [*named[:1], *patroni, *named[1:], *kernel[:1]]


def _boot(boot: Boot) -> dict[str, Any]:
    title = BOOTS.get(boot.phase, boot.phase)
    told = ", ".join(
        f"{row.name} at {row.begin / 1000:.1f} s for {row.took / 1000:.1f} s" for row in timeline.rows(boot)
    )
    # Every text in it was escaped where it was made.
    picture = Markup(timeline.svg(boot, f"{title}: {told}"))  # noqa: S704
    return {"title": title, "boot": boot, "picture": picture}


def _built_by(statement: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a SLSA v1 statement says of the builder, as far as it says it."""
    predicate = statement.get("predicate") or {}
    definition, details = predicate.get("buildDefinition") or {}, predicate.get("runDetails") or {}
    metadata = details.get("metadata") or {}
    materials = definition.get("resolvedDependencies")
    rows = {
        "Builder": (details.get("builder") or {}).get("id"),
        "Kind of build": definition.get("buildType"),
        "Started": metadata.get("startedOn"),
        "Finished": metadata.get("finishedOn"),
        "Inputs with digests": len(materials) if isinstance(materials, list) else None,
    }
    return [(name, str(value)) for name, value in rows.items() if value is not None]


def _filled(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "human": files.human,
        "duration": duration,
        "told": _told,
        "seconds": _seconds,
        "check": _check,
        "host": lambda name: HOST.get(name, name),
    }
    return environment


def _shown(value: object) -> object:
    """A value as a page may show it: without control characters, and without those that turn the reading around."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _told(change: diffs.Change, part: str) -> str:
    return diffs.told(part, change).replace("->", "→")


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.05 else "0 s"
