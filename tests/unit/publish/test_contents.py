from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from foundry import files, run
from foundry import tree as disks
from foundry.errors import CorruptArtifact
from foundry.publish import contents
from foundry.publish.contents import Component
from tests.unit.publish.small_image import DISK, REQUESTS, manifest, put, sha, tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(tmp_path / "root")


def by_name(root: Path, said: dict[str, Any] | None = None) -> dict[str, Component]:
    return {c.name: c for c in contents.found(root, said or manifest()).components}


def details(root: Path, said: dict[str, Any]) -> str:
    with pytest.raises(CorruptArtifact) as caught:
        contents.found(root, said)
    return str(caught.value.details)


def test_what_dpkg_has_installed_and_what_is_in_the_venv(root: Path) -> None:
    found = by_name(root)
    assert set(found) == {
        *("bash", "consul", "libfoo1", "mawk", "patroni-venv"),
        *("patroni", "requests", "Py_Socks", "python-etcd"),
    }
    bash = found["bash"]
    assert (bash.version, bash.arch, bash.source) == ("5.2-2+b13", "amd64", "bash 5.2-2")
    assert found["libfoo1"].file == "libfoo1_1.0-1_amd64.deb"
    assert (bash.file, bash.sha256) == ("bash_5.2-2+b13_amd64.deb", sha("bash"))
    assert (bash.supplier, bash.maintainer) == ("Debian", "Matthias Klose <doko@debian.org>")
    assert (bash.homepage, bash.summary) == ("https://www.gnu.org/software/bash", "GNU Bourne Again SHell")
    assert bash.licence.expression == "GPL-3.0-or-later"
    patroni = found["patroni"]
    assert (patroni.kind, patroni.version, patroni.inside) == ("pypi", "4.1.5", "patroni-venv")
    assert patroni.sha256 == sha("patroni-4.1.5-py3-none-any.whl")
    assert patroni.maintainer == "A. Kukushkin <a@example.org>"
    assert found["requests"].homepage == "https://requests.example.org"


def test_purls(root: Path) -> None:
    found = {name: c.purl for name, c in by_name(root).items()}
    assert found["bash"] == "pkg:deb/debian/bash@5.2-2%2Bb13?arch=amd64&distro=bookworm"
    assert found["libfoo1"] == "pkg:deb/debian/libfoo1@1:1.0-1?arch=amd64&distro=bookworm"
    assert found["consul"] == "pkg:deb/debian/consul@1.8.7%2Bdfsg1-2?arch=amd64&distro=bullseye"
    assert found["patroni-venv"] == "pkg:deb/patroni-foundry/patroni-venv@0.1.0?arch=amd64&distro=bookworm"
    assert found["Py_Socks"] == "pkg:pypi/py-socks@1.7"


@pytest.mark.parametrize(
    ("source", "vendor", "supplier"),
    [("hashicorp", "hashicorp", "HashiCorp"), ("file", "local", ""), ("none", "debian", "Debian")],
)
def test_whose_consul_it_is(root: Path, source: str, vendor: str, supplier: str) -> None:
    said = manifest()
    said["configuration"]["consul"] = {"source": source, "suite": None, "uri": "https://apt.example.org"}
    consul = by_name(root, said)["consul"]
    assert consul.purl.startswith(f"pkg:deb/{vendor}/consul@")
    assert consul.supplier == supplier
    assert ("repository_url=" in consul.purl) == (source == "hashicorp")


def test_a_package_of_postgresqls_own_archive(root: Path) -> None:
    said = manifest()
    said["configuration"]["postgresql"] = {"source": "pgdg", "uri": "https://pgdg.example.org"}
    status = root / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("Version: 1.3-1", "Version: 1.3-1.pgdg12+1"))
    next(row for row in said["packages"] if row["name"] == "mawk")["version"] = "1.3-1.pgdg12+1"
    found = by_name(root, said)
    assert found["mawk"].purl.startswith("pkg:deb/pgdg/mawk@")
    assert "repository_url=https://pgdg.example.org" in unquote(found["mawk"].purl)
    assert found["bash"].supplier == "Debian"


def test_depends_are_met_by_the_first_alternative_or_by_who_provides_it(root: Path) -> None:
    found = by_name(root)
    # "debconf" is not there and "debconf-2.0" is libfoo1's; "awk" is mawk's; nobody has "libgone".
    assert found["bash"].needs == (found["libfoo1"].purl, found["mawk"].purl)
    assert found["consul"].needs == (found["bash"].purl,)
    # What it provides itself is no other package.
    assert found["libfoo1"].needs == ()


def test_modules_need_what_their_extras_and_the_target_ask_for(root: Path) -> None:
    found = by_name(root)
    assert found["patroni"].needs == (found["python-etcd"].purl, found["requests"].purl)
    # The extra that patroni asks requests for brings this one.
    assert found["requests"].needs == (found["Py_Socks"].purl,)


def test_another_version_names_both(root: Path) -> None:
    said = manifest()
    said["packages"][0]["version"] = "5.2-3"
    assert details(root, said) == "the manifest has bash 5.2-3 (amd64), the image has bash 5.2-2+b13 (amd64)"


def test_what_only_one_of_them_has(root: Path) -> None:
    said = manifest()
    del said["packages"][1]
    said["packages"].append({"name": "vim", "version": "9", "arch": "amd64", "sha256": sha("vim")})
    assert details(root, said).splitlines() == [
        "the manifest has no libfoo1 (amd64), the image has libfoo1 1:1.0-1 (amd64)",
        "the manifest has vim 9 (amd64), the image has no vim (amd64)",
    ]


def test_a_wheel_of_another_version_or_too_many_or_missing(root: Path) -> None:
    site = root / "usr/lib/patroni-venv/lib/python3.11/site-packages"
    put(site, "requests-2.34.0.dist-info/METADATA", REQUESTS.replace("2.34.0", "2.35"))
    put(site, "evil-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    said = manifest()
    # Without the word that it only built the others, it should have been in the image.
    del said["wheels"][-1]["shipped"]
    assert details(root, said).splitlines() == [
        "the manifest has no evil (Python), the image has evil 1 (Python)",
        "the manifest has requests 2.34.0 (Python), the image has requests 2.35 (Python)",
        "the manifest has setuptools 84.2.1 (Python), the image has no setuptools (Python)",
    ]


def test_modules_outside_of_any_package(root: Path) -> None:
    put(root, "usr/local/lib/python3.11/dist-packages/evil-1.dist-info/METADATA", "Name: evil\n")
    assert details(root, manifest()) == ("usr/local/lib/python3.11/dist-packages/evil-1.dist-info is in no package")


def test_the_bytes_must_be_the_manifests(tmp_path: Path) -> None:
    image = put(tmp_path, DISK, "another disk")
    with pytest.raises(CorruptArtifact, match="not a file that its manifest describes"):
        contents.read(image, manifest(), tmp_path)


@pytest.mark.real_process
def test_read_out_of_a_disk(root: Path, tmp_path: Path) -> None:
    disk, raw = tmp_path / DISK, tmp_path / "made.raw"
    with raw.open("wb") as stream:
        stream.truncate(16 << 20)
    table = put(tmp_path, "table", "label: gpt\nstart=4096, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n")
    with table.open("rb") as stream:
        run.run(["sfdisk", "-q", raw], stdin=stream)
    run.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, "-E", f"offset={4096 * disks.SECTOR}", raw, "12M"])
    run.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk])
    said = manifest()
    said["files"][0]["sha256"] = files.sha256(disk)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = contents.read(disk, said, scratch)
    assert found.components == contents.found(root, said).components
    assert found.digest == said["files"][0]["sha256"]
    assert not list(scratch.iterdir())
