"""What is in a store, and how two versions in it differ: for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from foundry import console, files
from foundry.config import Config
from foundry.publish import bundle, diff, ledger
from foundry.publish.consumer import chosen
from foundry.publish.ledger import Broken, State
from foundry.publish.session import Reading, reading
from foundry.workspace import Workspace

HEAD = ("image", "version", "channels", "built", "size", "verdict", "packages, compared with the version before")


def releases(settings: Config, workspace: Workspace, *, to: str | None, as_json: bool) -> list[str]:
    """A table of versions and what points at them, and the last changes. Raises as session.reading does."""
    with reading(settings, workspace, to) as open_:
        entries = open_.entries[-10:]
        if as_json:
            return console.json_lines(as_plain(open_, entries))
        return [*console.table(_rows(open_)), "", *(str(entry) for entry in entries)]


def difference(
    settings: Config, workspace: Workspace, old: str, new: str, *, title: str | None, to: str | None, as_json: bool
) -> list[str]:
    """What differs between two published versions, each named by itself or by a channel.

    Raises ConfigError where one is not there, or where they are of two images; and as session.reading does.
    """
    with reading(settings, workspace, to) as open_:
        state = open_.state
        image, after = chosen(state, new, title)
        before = chosen(state, old, image)[1]
        found = diff.between(open_.shelf.version(state, image, before), open_.shelf.version(state, image, after))
        return console.json_lines(found.as_json()) if as_json else found.lines()


def as_plain(open_: Reading, entries: Sequence[ledger.Entry]) -> dict[str, Any]:
    """All of it as plain values."""
    state = open_.state
    return {
        "sequence": state.sequence,
        "versions": {image: list(versions) for image, versions in state.versions.items()},
        "channels": {
            image: {channel: stack[-1] for channel, stack in channels.items()}
            for image, channels in state.channels.items()
        },
        "about": {image: {v: _about(open_, image, v) for v in vs} for image, vs in state.versions.items()},
        "log": [vars(entry) for entry in entries],
    }


def _about(open_: Reading, image: str, version: str) -> dict[str, Any]:
    """What a version says of itself; what is wrong with it where it is not what was published."""
    try:
        manifest = open_.shelf.manifest(open_.state, image, version)
        verdict = json.loads(open_.shelf.read(open_.state, image, version, bundle.VERDICT))
    except Broken as error:
        return {"broken": error.brief}
    passed = sum(o["outcome"] == "passed" for o in verdict["outcomes"])
    return {
        "built": manifest["built"],
        "size": manifest["files"][0]["size"],
        "sha256": manifest["files"][0]["sha256"],
        "verdict": {"ended": verdict["ended"], "passed": passed, "of": len(verdict["outcomes"])},
        "packages": _changes(open_, image, version),
    }


def _changes(open_: Reading, image: str, version: str) -> str | None:
    """How its packages differ from those of the version that was published before it; None for the first one."""
    versions = list(open_.state.versions[image])
    place = versions.index(version)
    if place == 0:
        return None
    old, new = (open_.shelf.version(open_.state, image, v) for v in (versions[place - 1], version))
    packages = diff.between(old, new).packages
    return diff.sentence("packages", packages) if packages else diff.NOTHING


def _rows(open_: Reading) -> list[Sequence[str]]:
    state: State = open_.state
    rows: list[Sequence[str]] = [HEAD]
    for image, versions in state.versions.items():
        for version in reversed(list(versions)):
            pointing = ", ".join(c for c, stack in state.channels.get(image, {}).items() if stack[-1] == version)
            said = _about(open_, image, version)
            if "broken" in said:
                rows.append((image, version, pointing, said["broken"]))
                continue
            verdict = said["verdict"]
            rows.append(
                (
                    image,
                    version,
                    pointing,
                    said["built"][:16].replace("T", " "),
                    files.human(said["size"]),
                    f"{verdict['passed']} of {verdict['of']}",
                    said["packages"] or "the first one",
                )
            )
    return rows if len(rows) > 1 else [("nothing is published yet",)]
