"""What is noticed where the publisher's own key has signed packages or files for incus that are not the image's."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from foundry import files
from foundry.publish import streams
from foundry.publish.ledger import Broken
from foundry.publish.provenance import Malformed
from tests.unit.publish import small_image
from tests.unit.publish.publishing import NAME, Project
from tests.unit.publish.signed_again import TARBALL, Change, edited, of_another, refused, sign

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]

BASH = "pool/bash/bash_5.2-2+b13_amd64.deb"


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


@pytest.fixture
def folder(project: Project) -> Path:
    return project.store / "images" / NAME / "2"


# packages


Members = list[tuple[tarfile.TarInfo, bytes]]


def repacked(change: Callable[[Members], Members]) -> Change:
    """Other members in the tarball."""

    def act(folder: Path) -> None:
        path = folder / TARBALL
        with tarfile.open(path) as archive:
            whole = [(m, s.read() if (s := archive.extractfile(m)) else b"") for m in archive.getmembers()]
        with tarfile.open(path, "w") as archive:
            for member, content in change(whole):
                archive.addfile(member, io.BytesIO(content))

    return act


def member(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(f"{Path(TARBALL).stem}/{name}")
    made.size, made.type, made.linkname = len(content), kind, "/etc/passwd"
    return made, content


def packed_with(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> Change:
    return repacked(lambda whole: [*whole, member(name, content, kind)])


def packed_without(name: str) -> Change:
    return repacked(lambda whole: [row for row in whole if not row[0].name.endswith(name)])


def packed_other(name: str, content: bytes) -> Change:
    return repacked(lambda whole: [member(name, content) if m.name.endswith(name) else (m, old) for m, old in whole])


def index_with(more: str) -> Change:
    def act(folder: Path) -> None:
        with (folder / "Packages").open("a", encoding="utf-8") as stream:
            stream.write(f"\n{more}")

    return act


def index_changed(old: str, new: str) -> Change:
    def act(folder: Path) -> None:
        text = (folder / "Packages").read_text(encoding="utf-8")
        assert old in text
        (folder / "Packages").write_text(text.replace(old, new), encoding="utf-8")

    return act


EVIL = "Package: evil\nVersion: 1\nArchitecture: amd64\nFilename: pool/e.deb\nSize: 1\nSHA256: " + "0" * 64 + "\n"
PACKAGES = [
    (packed_other(BASH, b"other"), f"{TARBALL}: {BASH} is not the package that Packages names"),
    (packed_with("pool/evil.deb", b"x"), f"{TARBALL}: pool/evil.deb is not the package that Packages names"),
    # Whoever unpacks it gets the last one.
    (packed_with(BASH, b"other"), f"{TARBALL}: {BASH} is not the package that Packages names"),
    (packed_with(BASH, b"", tarfile.SYMTYPE), f"{TARBALL}: {BASH} is neither a file nor a folder"),
    (packed_with("../x/pool/evil.deb", b"x"), f"{TARBALL}: patroni-node-2-offline/../x/pool/evil.deb is outside"),
    (packed_with("dists/x/main/Packages", b"x"), f"{TARBALL}: dists/x/main/Packages is not the index Packages"),
    (packed_without(BASH), f"{TARBALL} has no {BASH}"),
    (index_with(EVIL), "Packages: evil 1 is not the package that is in the image"),
    (index_changed(small_image.sha("bash"), "0" * 64), "Packages: bash 5.2-2+b13 is not the package that is in"),
    (index_changed("Version: 5.2-2+b13", "Version: 6"), "Packages: bash 6 is not the package that is in the image"),
    (lambda folder: (folder / "Packages").write_text(""), "Packages has no patroni-venv"),
]


@pytest.mark.parametrize(("change", "why"), PACKAGES)
def test_packages_that_are_not_the_images(project: Project, folder: Path, change: Change, why: str) -> None:
    change(folder)
    sign(project, folder, origin=True)
    refused(project, why)


# incus


def _fitting(folder: Path) -> None:
    """Facts for incus that fit the metadata, which are those of version 1."""
    of_another("incus.tar.xz")(folder)
    path = folder / "incus.tar.xz"
    about = {"sha256": files.sha256(path), "size": path.stat().st_size}
    disk = streams.fingerprint(path, folder / f"{NAME}-2.qcow2")
    files.write_json(folder / "incus.json", about | {"combined_disk-kvm-img_sha256": disk})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (of_another("incus.json"), f"incus.json is about other files than incus.tar.xz and {NAME}-2.qcow2"),
        (edited("incus.json", lambda f: f.update({"combined_disk-kvm-img_sha256": "0" * 64})), "incus.json is about"),
        (edited("incus.json", lambda f: f.update(sha256="0" * 64)), "incus.json is about other files"),
        (_fitting, "incus.tar.xz describes another image than the manifest"),
    ],
)
def test_what_incus_gets_is_about_something_else(project: Project, folder: Path, change: Change, why: str) -> None:
    change(folder)
    sign(project, folder, origin=True)
    refused(project, why)


# what is no more of its kind


NEEDED = ["Packages", "boot.json", "changes.json", "changes.md", "console.log", "index.html", "manifest.json"]
NEEDED += [TARBALL, "provenance.json", "sbom.cdx.json", "sbom.spdx.json", "verdict.json", "verdict.xml"]
FOR_INCUS = ["incus.json", "incus.tar.xz"]


@pytest.mark.parametrize("name", NEEDED + FOR_INCUS)
def test_a_version_that_lacks_a_file(project: Project, folder: Path, name: str) -> None:
    (folder / name).unlink()
    sign(project, folder, origin=False)
    refused(project, f"SHA256SUMS names no {name}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Packages", "Package: x\n"),
        ("Packages", "["),
        ("manifest.json", "{"),
        ("manifest.json", "[]"),
        ("manifest.json", '{"name": "debian-12", "version": "2", "files": []}'),
        (TARBALL, ""),
        (TARBALL, "[" * 1000),
        ("provenance.json", "{"),
        ("provenance.json", "[]"),
        ("sbom.cdx.json", "{"),
        ("sbom.spdx.json", "[]"),
        ("verdict.json", "{"),
        ("verdict.json", "[]"),
        ("incus.json", "{"),
        ("incus.json", "[]"),
        ("incus.tar.xz", ""),
        ("incus.tar.xz", "[" * 1000),
    ],
)
def test_a_file_that_makes_no_sense(project: Project, folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    sign(project, folder, origin=name not in ("provenance.json", "manifest.json"))
    refused(project, name, Malformed if name == "provenance.json" else Broken)


def test_a_tarball_that_ends_too_early(project: Project, folder: Path) -> None:
    path = folder / TARBALL
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sign(project, folder, origin=True)
    refused(project, TARBALL)
