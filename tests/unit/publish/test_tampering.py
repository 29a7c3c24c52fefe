"""What someone with the public key alone notices of a store that somebody without the publisher's key has changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from foundry import gpg
from foundry.errors import ConfigError, FoundryError
from foundry.gpg import BadSignature
from foundry.publish import ledger
from foundry.publish.ledger import Broken
from foundry.publish.stores import Missing
from tests.unit.publish.publishing import NAME, Project, flip

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]

LISTED = (
    "Packages",
    "boot.json",
    "changes.json",
    "changes.md",
    "console.log",
    f"{NAME}-2.qcow2",
    "incus.json",
    "incus.tar.xz",
    "index.html",
    "manifest.json",
    "patroni-node-2-offline.tar",
    "provenance.json",
    "sbom.cdx.json",
    "sbom.spdx.json",
    "verdict.json",
    "verdict.xml",
)
SUMS = ("SHA256SUMS", "SHA256SUMS.gpg")
ENTRIES = tuple(ledger.path_of(number) for number in (1, 2, 3))


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


def place(project: Project, name: str, version: str = "2") -> Path:
    """A file of a version, or one of the store's own."""
    own = name == ledger.INDEX or name.startswith(ledger.LOG)
    return project.store / name if own else project.store / "images" / NAME / version / name


def flipped(project: Project, name: str) -> None:
    # In the middle of what is signed: at the ends of a signed text lie bytes that mean nothing.
    path = place(project, name)
    flip(path, path.stat().st_size // 2 if path.suffix == ".asc" else -20 if path.stat().st_size > 20 else 0)


def cut(project: Project, name: str) -> None:
    path = place(project, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing(project: Project, name: str) -> None:
    place(project, name).unlink()


def of_another(project: Project, name: str) -> None:
    path, other = place(project, name), place(project, name.replace("-2", "-1"), "1")
    assert path.read_bytes() != other.read_bytes()
    shutil.copyfile(other, path)


def by_another_key(project: Project, name: str) -> None:
    path = place(project, name)
    other = gpg.throw_away(project.workspace.build / "other", "Somebody else")
    if path.suffix == ".gpg":
        path.unlink()
        other.detach(path.with_suffix(""), path)
    else:
        path.write_text(other.clearsign(plain(path), project.workspace.build), encoding="utf-8")


def unsigned(project: Project, name: str) -> None:
    path = place(project, name)
    path.write_text(plain(path), encoding="utf-8")


def plain(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE")[0]


def moved_pointer(project: Project, name: str) -> None:
    path = place(project, name)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"candidate": [\n     "1",\n     "2"', '"candidate": [\n     "2",\n     "1"'))
    assert path.read_text(encoding="utf-8") != text


def swapped(project: Project, name: str) -> None:
    one, two = place(project, name), place(project, ENTRIES[1])
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def refused(project: Project, error: type[FoundryError], why: str, kept: Path) -> None:
    with pytest.raises(FoundryError, match=why) as caught:
        project.check("candidate", keep=kept)
    assert type(caught.value) is error
    assert not kept.exists()


def test_a_version_has_no_other_files_than_those_that_are_tampered_with_here(project: Project) -> None:
    assert {p.name for p in place(project, "x").parent.iterdir()} == {*LISTED, *SUMS}


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("change", [flipped, cut, missing, of_another])
def test_a_file_that_was_tampered_with(
    project: Project, change: Callable[[Project, str], None], name: str, tmp_path: Path
) -> None:
    change(project, name)
    error, why = (Missing, f"has no .*/{name}") if change is missing else (Broken, f"2/{name} is not what SHA256SUMS")
    refused(project, error, why, tmp_path / "kept")


OTHER_INDEX = "SHA256SUMS is not the one that the index names"
SIGNED: list[tuple[Callable[[Project, str], None], str, type[FoundryError], str]] = [
    (flipped, SUMS[0], Broken, OTHER_INDEX),
    (cut, SUMS[0], Broken, OTHER_INDEX),
    (missing, SUMS[0], Missing, "has no .*SHA256SUMS"),
    (of_another, SUMS[0], Broken, OTHER_INDEX),
    (flipped, SUMS[1], BadSignature, "SHA256SUMS: its signature does not hold"),
    (cut, SUMS[1], BadSignature, "SHA256SUMS: its signature does not hold"),
    (missing, SUMS[1], Missing, "has no .*SHA256SUMS.gpg"),
    (of_another, SUMS[1], BadSignature, "SHA256SUMS: its signature does not hold"),
    (by_another_key, SUMS[1], BadSignature, "SHA256SUMS: its signature does not hold"),
    (flipped, ledger.INDEX, BadSignature, "index.asc: its signature does not hold"),
    (cut, ledger.INDEX, BadSignature, "index.asc: its signature does not hold"),
    (missing, ledger.INDEX, ConfigError, "is no store: it has no index.asc"),
    (moved_pointer, ledger.INDEX, BadSignature, "index.asc: its signature does not hold"),
    (by_another_key, ledger.INDEX, BadSignature, "index.asc: its signature does not hold"),
    (unsigned, ledger.INDEX, BadSignature, "index.asc: its signature does not hold"),
    *((flipped, entry, BadSignature, f"{Path(entry).name}: its signature does not hold") for entry in ENTRIES),
    *((cut, entry, BadSignature, f"{Path(entry).name}: its signature does not hold") for entry in ENTRIES),
    (missing, ENTRIES[0], Broken, "its index is not what its log leads to"),
    (missing, ENTRIES[1], Broken, "its index is not what its log leads to"),
    (missing, ENTRIES[2], Broken, "its index is not what its log leads to"),
    (by_another_key, ENTRIES[1], BadSignature, "00000002.json.asc: its signature does not hold"),
    (unsigned, ENTRIES[1], BadSignature, "00000002.json.asc: its signature does not hold"),
    (swapped, ENTRIES[0], Broken, "00000002.json.asc does not follow entry 0"),
    (swapped, ENTRIES[2], Broken, "00000003.json.asc does not follow entry 1"),
]


@pytest.mark.parametrize(("change", "name", "error", "why"), SIGNED)
def test_something_signed_that_was_tampered_with(
    project: Project,
    change: Callable[[Project, str], None],
    name: str,
    error: type[FoundryError],
    why: str,
    tmp_path: Path,
) -> None:
    change(project, name)
    refused(project, error, why, tmp_path / "kept")


def test_both_checksums_and_signature_of_another_version(project: Project, tmp_path: Path) -> None:
    for name in SUMS:
        of_another(project, name)
    refused(project, Broken, OTHER_INDEX, tmp_path / "kept")
