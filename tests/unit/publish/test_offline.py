from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from foundry.publish import aptrepo, offline
from foundry.publish.version import Version
from tests.unit.publish.fake_key import KEY
from tests.unit.publish.small_debs import deb

TEXTS = Path(__file__).parents[3] / "templates" / "offline"
VERSION = Version("debian-12", "20261124-6bacd652", (), {"built": "2026-11-24T16:48:18+00:00"})
TOP = "patroni-node-20261124-6bacd652-offline"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    aptrepo.lay_out([deb(tmp_path, "a"), deb(tmp_path, "b", "1:2")], ["a", "b"], tmp_path / "repository")
    return tmp_path / "repository"


def made(repository: Path, name: str) -> Path:
    return offline.tarball(VERSION, repository, KEY, TEXTS, repository.parent / name)


@pytest.mark.real_process
def test_the_tarball_holds_a_whole_repository(repository: Path) -> None:
    assert offline.name(VERSION) == f"{TOP}.tar"
    index = (repository / "Packages").read_bytes()
    suite = f"{TOP}/dists/debian-12-offline"
    with tarfile.open(made(repository, "a.tar"), "r:") as archive:
        members = {m.name: m for m in archive.getmembers()}
        data = {n: f.read() for n in members if members[n].isfile() and (f := archive.extractfile(n))}
    assert {f"{TOP}/{n}" for n in ("README", "add-source", "offline.sources")} < set(data)
    assert {f"{TOP}/pool/a/a_1.0_all.deb", f"{TOP}/pool/b/b_2_all.deb"} < set(data)
    assert data[f"{suite}/main/binary-amd64/Packages"] == index
    for entry in aptrepo.entries(index):
        assert hashlib.sha256(data[f"{TOP}/{entry.path}"]).hexdigest() == entry.sha256
    # Nobody who unpacks it as root gets files of another owner, and apt's own user can read all of them.
    assert {(m.uid, m.gid, m.uname, m.mtime) for m in members.values()} == {(0, 0, "", 1795538898)}
    assert {m.mode for m in members.values()} == {0o755, 0o644}
    assert members[f"{TOP}/add-source"].mode == 0o755
    assert list(members) == sorted(members, key=lambda name: name.split("/"))
    sources = data[f"{TOP}/offline.sources"].decode()
    assert f"URIs: file:/srv/{TOP}\n" in sources
    assert "Suites: debian-12-offline\n" in sources
    assert "key of F00D" in sources
    assert data[f"{suite}/InRelease"].startswith(b"signed by F00D\n")


@pytest.mark.real_process
def test_the_readme_names_what_is_there(repository: Path) -> None:
    with tarfile.open(made(repository, "a.tar"), "r:") as archive:
        stream = archive.extractfile(f"{TOP}/README")
        assert stream
        text = stream.read().decode()
    for part in (f"tar xf {TOP}.tar -C /srv", f"sh /srv/{TOP}/add-source", "apt install patroni-node", "F00D"):
        assert part in text
    assert "debian-12 20261124-6bacd652, built on 2026-11-24" in text
    assert "2 packages" in text
    assert f"Dir::Etc::sourcelist={offline.INSTALLED} -o Dir::Etc::sourceparts=- patroni-node" in text
    assert f"source={offline.INSTALLED}\n" in (TEXTS / "add-source").read_text(encoding="utf-8")


@pytest.mark.real_process
def test_the_same_input_gives_the_same_bytes_and_leaves_nothing_else(repository: Path) -> None:
    first = made(repository, "a.tar").read_bytes()
    for path in repository.rglob("*.deb"):
        path.touch()
    assert made(repository, "b.tar").read_bytes() == first
    assert [p.name for p in repository.parent.iterdir() if p.name.startswith(".")] == []
