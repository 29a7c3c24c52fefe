"""Files of a version that do not belong together, signed by the publisher's own key all the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from foundry import files, gpg
from foundry.errors import FoundryError
from foundry.publish import documents, ledger, provenance
from foundry.publish.ledger import Broken, Entry
from foundry.publish.version import File
from tests.unit.publish import small_image
from tests.unit.publish.publishing import NAME, NOW, Project

Change = Callable[[Path], object]
"""Changes the folder of a version."""

TARBALL = "patroni-node-2-offline.tar"


def sign(project: Project, folder: Path, *, origin: bool) -> None:
    """Let the publisher's key sign what a folder holds now, and name it in the log; the index lags behind, as it may.

    origin: also the statement of its files' origin.
    """
    key = publisher(project)
    if origin:
        write_origin(folder, key)
    lines = [f"{files.sha256(p)}  {p.name}\n" for p in sorted(folder.iterdir()) if not p.name.startswith("SHA256")]
    files.write(folder / "SHA256SUMS", "".join(lines))
    (folder / "SHA256SUMS.gpg").unlink()
    key.detach(folder / "SHA256SUMS", folder / "SHA256SUMS.gpg")
    sums, last = files.sha256(folder / "SHA256SUMS"), files.sha256(project.store / ledger.path_of(3))
    entry = Entry(4, last, "publish", NAME, "2", who="x", when=NOW, channel="candidate", before="2", sums=sums)
    text = key.clearsign(files.canonical(asdict(entry)), project.workspace.build)
    files.write(project.store / entry.path, text)


def publisher(project: Project) -> gpg.Key:
    return gpg.throw_away(project.workspace.publisher, "x")


def write_origin(folder: Path, key: gpg.Key, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    made = {p for p in folder.iterdir() if p.name not in documents.LATER}
    subjects = [File(p.name, p.stat().st_size, files.sha256(p)) for p in made]
    said = provenance.statement(small_image.manifest() | manifest_of(folder), subjects, "https://ci.example.org", NOW)
    change(said)
    provenance.write(said, key, folder / provenance.NAME, folder.parent)


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = files.read_json(folder / "manifest.json") or {}
    return found


def edited(name: str, change: Callable[[Any], object]) -> Change:
    """A change of what a file says."""

    def act(folder: Path) -> None:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        change(value)
        files.write_json(folder / name, value)

    return act


def of_another(*names: str) -> Change:
    """Files of version 1 in place of this one's."""

    def act(folder: Path) -> None:
        for name in names:
            shutil.copyfile(folder.parent / "1" / name.replace("-2", "-1"), folder / name)

    return act


def refused(project: Project, why: str, error: type[FoundryError] = Broken) -> None:
    with pytest.raises(FoundryError) as caught:
        project.check()
    assert type(caught.value) is error
    said = f"{caught.value.brief}\n{caught.value.details}"
    assert why in said, said
