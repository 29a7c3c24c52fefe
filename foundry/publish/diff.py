"""What differs between two versions of an image, by their manifests: as lines, as plain values and as a changelog."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cmp_to_key
from itertools import groupby
from typing import Any, Literal

from debian.debian_support import version_compare
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion
from packaging.version import Version as PythonVersion

from foundry import files
from foundry.console import clean
from foundry.publish.version import Version

Kind = Literal["added", "removed", "upgraded", "downgraded", "rebuilt", "changed"]
KINDS: tuple[Kind, ...] = ("added", "removed", "upgraded", "downgraded", "rebuilt", "changed")
NOTHING = "no difference"
SECTIONS = {
    "packages": ("Debian package", "Debian packages"),
    "wheels": ("Python package", "Python packages"),
    "configuration": ("setting", "settings"),
    "tools": ("tool of the build host", "tools of the build host"),
    "sources": ("source file", "source files"),
    "disks": ("disk", "disks"),
}
"""A Diff's parts, as people call one of them and several."""


@dataclass(frozen=True)
class Change:
    """One thing that differs. old, new: its version, value, digest or size; None where it was, or is, not there.

    A package of the same version and other bytes is "rebuilt". A setting that was, or is, null is told by its kind.
    """

    name: str
    kind: Kind
    old: Any
    new: Any


@dataclass(frozen=True)
class Diff:
    """What differs from one version (old) to another (new); each part is sorted by name.

    packages, wheels: versions. configuration: values by dotted key. sources: "mode sha256" by path. tools: what they
    say of their version. disks: bytes of the images' files by their ending; an equal size is "rebuilt".
    """

    image: str
    old: str
    new: str
    packages: tuple[Change, ...] = ()
    wheels: tuple[Change, ...] = ()
    configuration: tuple[Change, ...] = ()
    sources: tuple[Change, ...] = ()
    tools: tuple[Change, ...] = ()
    disks: tuple[Change, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether nothing at all differs."""
        return not any(changes for _, changes in self.parts())

    def parts(self) -> Iterator[tuple[str, tuple[Change, ...]]]:
        """The name of each part, and what is in it, in the order of SECTIONS."""
        for name in SECTIONS:
            yield name, getattr(self, name)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values, for changes.json."""
        plain = asdict(self)
        return {**{k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}, "nothing": self.nothing}

    def summary(self) -> list[str]:
        """One sentence for each part in which something differs; [NOTHING] where none does."""
        return [sentence(name, changes) for name, changes in self.parts() if changes] or [NOTHING]

    def lines(self) -> list[str]:
        """All of it for a terminal."""
        found = [f"{self.image}: {self.old} -> {self.new}"]
        if self.nothing:
            return [*found, NOTHING]
        for name, changes in self.parts():
            if changes:
                found += ["", sentence(name, changes)]
                found += [] if name == "disks" else [f"  {line}" for line in _table(name, changes)]
        return found


def between(old: Version, new: Version) -> Diff:
    """What differs from old to new. Raises KeyError where a manifest lacks a part that every build writes."""
    before, after = old.manifest, new.manifest
    return Diff(
        image=new.image,
        old=old.version,
        new=new.version,
        packages=_compared(_packages(before), _packages(after), _debian_order),
        wheels=_compared(_wheels(before), _wheels(after), _python_order),
        configuration=_settings(before, after),
        sources=_values(before["inputs"]["sources"], after["inputs"]["sources"]),
        tools=_values(before["tools"], after["tools"]),
        disks=_disks(before, after),
    )


def changelog(new: Version, diff: Diff | None) -> str:
    """The page changes.md: what a version brings. diff: from the version before it, None for the first one."""
    found = [f"# {_code(new.image)} {_code(new.version)}", ""]
    if diff is None:
        return "\n".join([*found, "The first version: there is none before it.", ""])
    if diff.nothing:
        return "\n".join([*found, f"Compared with {_code(diff.old)}: {NOTHING}.", ""])
    found += [f"What changed since {_code(diff.old)}:", "", *(f"- {line}" for line in diff.summary())]
    for name, changes in diff.parts():
        if changes:
            found += ["", f"## {_title(name)}", ""]
            found += [f"- {_code(c.name)}: {_told(name, c, _code)}" for c in changes]
    return "\n".join([*found, ""])


def sentence(part: str, changes: Iterable[Change]) -> str:
    """How many things of a part differ, and how: "3 Debian packages: 1 added, 2 upgraded"; of disks their sizes."""
    if part == "disks":
        return "; ".join(f"{c.name}: {_told(part, c, str)}" for c in changes)
    counted = Counter(c.kind for c in changes)
    total = counted.total()
    what = f"{total} {SECTIONS[part][total > 1]}"
    if len(counted) == 1:
        return f"{what} {next(iter(counted))}"
    return f"{what}: {', '.join(f'{counted[kind]} {kind}' for kind in KINDS if counted[kind])}"


def _title(part: str) -> str:
    name = SECTIONS[part][1]
    return name[0].upper() + name[1:]


def told(part: str, change: Change) -> str:
    """What became of one thing, in words: "12.4 -> 12.5", "added, 1.0", "removed (was 1.0)"."""
    return _told(part, change, str)


def _told(part: str, change: Change, quoted: Callable[[str], str]) -> str:
    if part == "disks":
        return _size(change)
    if part == "sources":
        return change.kind
    old, new = (quoted(shown(v)) for v in (change.old, change.new))
    match change.kind:
        case "added":
            return f"added, {new}"
        case "removed":
            return f"removed (was {old})"
        case "rebuilt":
            return f"{new} built anew, with other bytes"
        case "downgraded":
            return f"{old} -> {new}, a downgrade"
        case _:
            return f"{old} -> {new}"


def _size(change: Change) -> str:
    if change.kind == "added":
        return f"added, {files.human(change.new)}"
    if change.kind == "removed":
        return f"removed (was {files.human(change.old)})"
    if change.old == change.new:
        return f"{files.human(change.new)} as before, with other bytes"
    more = change.new - change.old
    return (
        f"{files.human(change.old)} -> {files.human(change.new)} ({'+' if more > 0 else '-'}{files.human(abs(more))})"
    )


def shown(value: Any) -> str:
    """A value for people: a text as it is, but for what moves a cursor; anything else as JSON."""
    return clean(value if isinstance(value, str) else files.canonical(value))


def _table(part: str, changes: Iterable[Change]) -> list[str]:
    rows = [(c.kind, shown(c.name), "" if part == "sources" else told(part, c)) for c in changes]
    wide = max(len(name) for _, name, _ in rows)
    return [f"{kind:<10}  {name:<{wide}}  {words}".rstrip() for kind, name, words in rows]


def _code(text: str) -> str:
    """text as a code span, in which nothing else is markup (CommonMark 0.31, section 6.1)."""
    line = " ".join(clean(text).split()) or " "
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}"


Order = Callable[[str, str], int]


def _debian_order(old: str, new: str) -> int:
    return int(version_compare(old, new))


def _python_order(old: str, new: str) -> int:
    before, after = PythonVersion(old), PythonVersion(new)
    return (before > after) - (before < after)


def _compared(
    old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]], order: Order
) -> tuple[Change, ...]:
    """Changes of things with a version and a digest, by name."""
    found = []
    for name in sorted({*old, *new}):
        (before, was), (after, now) = old.get(name, (None, "")), new.get(name, (None, ""))
        if (before, was) != (after, now):
            found.append(Change(name, _kind(before, after, order), before, after))
    return tuple(found)


def _kind(old: str | None, new: str | None, order: Order) -> Kind:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old == new:
        return "rebuilt"
    try:
        way = order(old, new)
    except ValueError:
        return "changed"
    return "upgraded" if way < 0 else "downgraded" if way > 0 else "changed"


def _packages(manifest: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Name to version and digest; a name that two architectures have is told apart by them."""
    rows = [(str(p["name"]), str(p["arch"]), str(p["version"]), str(p["sha256"])) for p in manifest["packages"]]
    twice = {name for name, count in Counter(row[0] for row in rows).items() if count > 1}
    return {f"{name}:{arch}" if name in twice else name: (version, digest) for name, arch, version, digest in rows}


def _wheels(manifest: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Name to version and digest. What is there in several versions (one to build with, say) shows all of them."""
    rows = sorted((*python_package(str(w["name"])), str(w["sha256"])) for w in manifest["wheels"])
    found = {}
    for name, group in groupby(rows, key=lambda row: row[0]):
        members = list(group)
        versions = sorted({version for _, version, _ in members}, key=cmp_to_key(_tolerant))
        found[name] = (", ".join(versions), " ".join(digest for _, _, digest in members))
    return found


def _tolerant(old: str, new: str) -> int:
    try:
        return _python_order(old, new)
    except InvalidVersion:
        return (old > new) - (old < new)


def python_package(file: str) -> tuple[str, str]:
    """The name and version that a wheel's or sdist's file name gives; the file name itself where it gives none."""
    try:
        name, version = parse_wheel_filename(file)[:2] if file.endswith(".whl") else parse_sdist_filename(file)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return file, ""
    return str(name), str(version)


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    whole = [{**m["configuration"], "disk_size": m["disk_size"], "suite": m["suite"]} for m in (old, new)]
    return _values(*(dict(_flat(value)) for value in whole))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key in value:
            yield from _flat(value[key], f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _values(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    found = []
    for name in sorted({*old, *new}):
        # null is a value: only a key that is not there was added or removed.
        kind: Kind = "added" if name not in old else "removed" if name not in new else "changed"
        if kind != "changed" or files.canonical(old[name]) != files.canonical(new[name]):
            found.append(Change(name, kind, old.get(name), new.get(name)))
    return tuple(found)


def _disks(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    before, after = ({_ending(m, str(f["name"])): f for f in m["files"]} for m in (old, new))
    found = []
    for name in sorted({*before, *after}):
        was, now = before.get(name, {}), after.get(name, {})
        if was.get("sha256") == now.get("sha256"):
            continue
        kind: Kind = "added" if not was else "removed" if not now else "changed"
        if kind == "changed" and was["size"] == now["size"]:
            kind = "rebuilt"
        found.append(Change(name, kind, was.get("size"), now.get("size")))
    return tuple(found)


def _ending(manifest: Mapping[str, Any], name: str) -> str:
    return name.removeprefix(f"{manifest['name']}-{manifest['version']}.")
