from __future__ import annotations

import errno
import hashlib
import lzma
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from debian.deb822 import Deb822

from foundry.errors import CorruptArtifact
from foundry.publish import aptrepo
from foundry.publish.aptrepo import NotClosed, SameName
from foundry.workspace import Workspace
from tests.unit.publish.fake_key import KEY
from tests.unit.publish.small_debs import deb

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def index(**digests: str) -> bytes:
    """An index with a package for each name, and its sha256."""
    return "".join(
        f"Package: {name}\nVersion: 1:2.0\nArchitecture: amd64\nFilename: pool/{name}/{name}_2.0_amd64.deb\n"
        f"Size: 7\nSHA256: {digest}\n\n"
        for name, digest in digests.items()
    ).encode()


# laying out


@pytest.mark.real_process
def test_only_what_the_wanted_need_is_taken(tmp_path: Path) -> None:
    given = [
        deb(tmp_path, "node", "1:2.0", depends="library (>= 3)", recommends="store, nowhere", suggests="book"),
        deb(tmp_path, "library", "3.1~rc1+b2", provides="library-abi"),
        deb(tmp_path, "store"),
        deb(tmp_path, "book"),
        deb(tmp_path, "kernel"),
        deb(tmp_path, "shell", essential="yes"),
    ]
    made = aptrepo.lay_out(given, ["node", "?essential"], tmp_path / "repository with a space")
    found = {entry.path: entry for entry in aptrepo.entries(made)}
    assert sorted(found) == [
        # An epoch is no part of a file's name.
        "pool/library/library_3.1~rc1+b2_all.deb",
        "pool/node/node_2.0_all.deb",
        "pool/shell/shell_1.0_all.deb",
        "pool/store/store_1.0_all.deb",
    ]
    folder = tmp_path / "repository with a space"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {*found, "Packages"}
    assert (folder / "Packages").read_bytes() == made
    node = found["pool/node/node_2.0_all.deb"]
    assert (node.name, node.version, node.arch) == ("node", "1:2.0", "all")
    assert (node.size, node.sha256) == (given[0].path.stat().st_size, given[0].sha256)
    # A link: 150 MB are not copied.
    assert (folder / node.path).samefile(given[0].path)


@pytest.mark.real_process
def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    given = [deb(tmp_path, "node", depends="library"), deb(tmp_path, "library", depends="nowhere (>= 2)")]
    with pytest.raises(NotClosed) as error:
        aptrepo.lay_out(given, ["node"], tmp_path / "repository")
    assert "all that node need" in error.value.brief
    assert "library : Depends: nowhere (>= 2)" in str(error.value.details)


@pytest.mark.real_process
def test_a_package_of_other_bytes_is_refused(tmp_path: Path) -> None:
    given = deb(tmp_path, "node")
    other = aptrepo.Deb(given.path, "0" * 64)
    with pytest.raises(CorruptArtifact, match=r"node_1.0_all.deb is not what the image was made of"):
        aptrepo.lay_out([other], ["node"], tmp_path / "repository")


def test_a_link_to_another_file_system_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(number: int) -> None:
        def link(*_: object) -> None:
            raise OSError(number, "no link")

        monkeypatch.setattr(os, "link", link)

    (tmp_path / "a").write_bytes(b"deb")
    fails(errno.EXDEV)
    aptrepo.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"deb"
    fails(errno.ENOSPC)
    with pytest.raises(OSError, match="no link"):
        aptrepo.link(tmp_path / "a", tmp_path / "c")


# where the packages are


def row(name: str, data: bytes, version: str = "1:2.0") -> dict[str, str]:
    return {"name": name, "version": version, "arch": "all", "sha256": hashlib.sha256(data).hexdigest()}


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_the_packages_of_an_image_are_found(workspace: Workspace) -> None:
    fetched = put(workspace.pool / "less_1%3a2.0_all.deb", b"less")
    put(workspace.stage("patroni-node") / "k1" / "patroni-node_2.0_all.deb", b"of another build")
    built = put(workspace.stage("patroni-node") / "k2" / "patroni-node_2.0_all.deb", b"node")
    own = put(workspace.stage("archive") / "k" / "pool" / "my-consul.deb", b"consul")
    manifest = {
        "packages": [row("less", b"less"), row("patroni-node", b"node"), row("consul", b"consul")],
        "inputs": {
            "debs": [
                {"name": "patroni-node_2.0_all.deb", "sha256": hashlib.sha256(b"node").hexdigest()},
                {"name": "my-consul.deb", "sha256": hashlib.sha256(b"consul").hexdigest()},
            ]
        },
    }
    assert [d.path for d in aptrepo.debs(workspace, manifest)] == [fetched, built, own]
    built.write_bytes(b"changed")
    with pytest.raises(CorruptArtifact, match=r"has no patroni-node 1:2\.0 with sha256"):
        aptrepo.debs(workspace, manifest)
    fetched.unlink()
    with pytest.raises(CorruptArtifact, match=r"has no less 1:2\.0"):
        aptrepo.debs(workspace, manifest)


def test_what_foundry_yml_adds_to_the_image_is_wanted_too() -> None:
    manifest = {
        "name": "pg",
        "configuration": {"images": {"pg": {"packages": ["htop"]}, "other": {"packages": ["mc"]}}},
    }
    wanted = aptrepo.roots(manifest)
    assert {"patroni-node", "?essential", "htop"} <= set(wanted)
    assert "mc" not in wanted


# several versions in one pool


def test_same_bytes_may_be_in_many_versions() -> None:
    aptrepo.refuse_changed(index(a="11", b="22"), {"20261101-a": index(a="11"), "20261102-b": index(c="33")})


def test_other_bytes_under_the_same_name_are_refused() -> None:
    others = {"20261101-a": index(a="11", b="22"), "20261102-b": index(a="11", b="23")}
    with pytest.raises(SameName) as error:
        aptrepo.refuse_changed(index(a="11", b="24"), others)
    assert "b 1:2.0 (amd64)" in error.value.brief
    assert "a 1:2.0" not in error.value.brief
    assert "20261101-a" in str(error.value.details)
    assert "debian/changelog" in str(error.value.hint)


def test_what_no_version_has_is_unused() -> None:
    paths = ["pool/a/a_2.0_amd64.deb", "pool/b/b_2.0_amd64.deb", "pool/z/z_1_all.deb"]
    assert aptrepo.unused(paths, [index(a="11"), index(a="11", b="22")]) == ["pool/z/z_1_all.deb"]


# what apt sees of a channel


def suite(tmp_path: Path, packages: bytes, valid_for: timedelta | None = None) -> dict[str, bytes]:
    return aptrepo.view(packages, "debian-12", "stable", KEY, tmp_path, date=NOW, valid_for=valid_for)


@pytest.mark.real_process
def test_indexes_are_there_before_what_names_them(tmp_path: Path) -> None:
    packages = index(a="11")
    view = suite(tmp_path, packages)
    area = "apt/dists/debian-12-stable/"
    names = [path.removeprefix(area) for path in view]
    packed = view[f"{area}main/binary-amd64/Packages.xz"]
    assert lzma.decompress(packed) == packages
    digests = [hashlib.sha256(data).hexdigest() for data in (packages, packed)]
    assert names == [
        *(f"main/binary-amd64/by-hash/SHA256/{digest}" for digest in digests),
        "InRelease",
        "main/binary-amd64/Packages",
        "main/binary-amd64/Packages.xz",
        "Release",
        "Release.gpg",
    ]
    assert [view[f"{area}{names[n]}"] for n in (0, 1)] == [packages, packed]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_process
def test_release_says_what_and_when(tmp_path: Path) -> None:
    packages = index(a="11")
    view = suite(tmp_path, packages)
    release = view["apt/dists/debian-12-stable/Release"].decode()
    fields = Deb822(release)
    names = {"Suite", "Codename", "Origin", "Label", "Architectures", "Components", "Date", "Acquire-By-Hash", "SHA256"}
    assert set(fields) == names
    assert (fields["Suite"], fields["Codename"]) == ("debian-12-stable", "debian-12-stable")
    assert (fields["Origin"], fields["Label"]) == ("Patroni Foundry", "Patroni Foundry")
    assert (fields["Architectures"], fields["Components"], fields["Acquire-By-Hash"]) == ("amd64", "main", "yes")
    assert fields["Date"] == "Tue, 24 Nov 2026 09:30:00 UTC"
    listed = {line.split()[2]: line.split()[:2] for line in fields["SHA256"].strip().splitlines()}
    assert listed["main/binary-amd64/Packages"] == [hashlib.sha256(packages).hexdigest(), str(len(packages))]
    assert set(listed) == {"main/binary-amd64/Packages", "main/binary-amd64/Packages.xz"}
    assert view["apt/dists/debian-12-stable/InRelease"].decode() == f"signed by F00D\n{release}"
    assert view["apt/dists/debian-12-stable/Release.gpg"].decode() == f"F00D True {release}"


@pytest.mark.real_process
def test_a_suite_can_expire(tmp_path: Path) -> None:
    view = suite(tmp_path, index(a="11"), timedelta(days=30))
    fields = Deb822(view["apt/dists/debian-12-stable/Release"])
    assert fields["Valid-Until"] == "Thu, 24 Dec 2026 09:30:00 UTC"


@pytest.mark.real_process
def test_two_channels_of_one_version_differ_in_their_release_only(tmp_path: Path) -> None:
    found = [
        aptrepo.dists(index(a="11"), name, KEY, tmp_path, date=NOW) for name in ("debian-12-stable", "debian-12-next")
    ]
    below = [{path.split("/", 2)[2]: data for path, data in view.items()} for view in found]
    assert set(below[0]) == set(below[1])
    assert {path for path in below[0] if below[0][path] != below[1][path]} == {"InRelease", "Release", "Release.gpg"}


def test_the_sources_file_has_the_key_in_it() -> None:
    armored = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDME\n=xhyX\n-----END PGP PUBLIC KEY BLOCK-----\n"
    text = aptrepo.sources("https://images.example.com/apt", "debian-12-stable", armored)
    fields = Deb822(text)
    assert fields["URIs"] == "https://images.example.com/apt"
    assert (fields["Types"], fields["Suites"], fields["Components"]) == ("deb", "debian-12-stable", "main")
    # As in deb822(5): a line that is empty is written as a dot.
    assert text.endswith(
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\n =xhyX\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )
    assert aptrepo.sources_path("debian-12", "stable") == "apt/debian-12-stable.sources"
