"""A version built by the README's command on a bare host, and built again here from its manifest.

Two hosts, two folders, sources that came by git and that did not, other users, and a later moment: what both make from
nothing is compared, and what the one made before with what the other needs.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from foundry import disk, epoch, ext4, files, image, listing, tree
from tests.pipeline.bare_host import SOURCES, BareHost, bare_host
from tests.pipeline.conftest import Scratch
from tests.pipeline.harness import ROOT, STAGES, Ended, copy, gone, half_made, inv, results

KEPT = ("pool", "wheels", "host")
FOLDERS = ("foundry", "debian", "patroni_node", "files", "templates", "packer", "requirements")
EQUAL = (
    "patroni-venv/*/*.deb",
    "patroni-node/*/*.deb",
    "archive/*/Packages",
    "archive/*/Release",
    "base/*/base.raw",
    "base/*/initrd.img",
    "base/*/vmlinuz",
)
# What takes longest. The bare host has made both from nothing, and what it made of them is compared.
AT_HAND = ("chroot", "bootstrap")
# What users may have set, none of which belongs into an image; here two of them, who have nothing in common.
SURROUNDINGS = {"TZ": "Pacific/Auckland", "LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "PYTHONHASHSEED": "7"}
# A bare host has no list of time zones.
OTHERS = "umask 027; export TZ=NST3:30NDT LANG=fr_FR.UTF-8 LC_ALL=fr_FR.UTF-8 PYTHONHASHSEED=11"


@dataclass(frozen=True)
class Rebuilt:
    """A build folder that was filled by `build-image --from`, and how that run ended."""

    build: Path
    ended: Ended

    @property
    def image(self) -> image.Release:
        return image.load(next(self.build.glob("images/*/manifest.json")).parent)


@pytest.fixture(scope="module")
def project(playground: Path) -> Iterator[Path]:
    """The sources without anything else, in another folder."""
    target = playground / "project"
    target.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("task*.py"):
        shutil.copy2(path, target)
    yield target
    shutil.rmtree(target)


@pytest.fixture(scope="module")
def bare(built: Path, playground: Path) -> Iterator[BareHost]:
    """A bare host on which a user with settings of their own has run the README's command."""
    with bare_host(built, playground) as host:
        assert host.sh("for it in git mmdebstrap qemu-img; do command -v $it || true; done", 60).output == ""
        host.sh(f"{OTHERS}; cd {SOURCES}; ./inv build-image --no-verify", 1500)
        yield host


@pytest.fixture(scope="module")
def manifest(built: Path) -> Path:
    """Of the newest image; its disk lies beside it."""
    return newest(built)


def newest(build: Path) -> Path:
    """The manifest of the newest image in a build folder."""
    folder = str((files.read_json(build / "images/debian-12.json") or {})["folder"])
    return build / "images" / folder / "manifest.json"


def again(build: Path, project: Path, manifest: Path, *words: str, seconds: float = 120) -> Ended:
    """Rebuild as another user would: an own umask, time zone, locale and folder."""
    return inv(
        build,
        *("build-image", "--from", str(manifest), "--no-verify", *words),
        seconds=seconds,
        program=(sys.executable, "-m", "invoke"),
        cwd=project,
        within=("sh", "-c", 'umask 077 && exec "$@"', "sh"),
        env=SURROUNDINGS,
    )


@pytest.fixture(scope="module")
def rebuilt(built: Path, bare: BareHost, project: Path, playground: Path) -> Iterator[Rebuilt]:
    """What the bare host has fetched is at hand, but for a package and a wheel, which have to be fetched anew.

    Of what stages make, only what this host itself made before, of these very inputs; were it of others, as when Debian
    has changed since then, all would be made anew.
    """
    build = copy(bare.build, playground / "rebuilt", ("pool", "wheels"))
    copy(built, build, ("host", *AT_HAND))
    for path in (next(build.glob("pool/netbase_*.deb")), next(build.glob("wheels/idna-*.whl"))):
        path.unlink()
    yield Rebuilt(build, again(build, project, newest(bare.build), "--set", "build.machine=vm", seconds=1200))
    gone(build)
    shutil.rmtree(build)


def test_the_readme_s_build_works_where_nothing_is_installed_and_nothing_has_come_by_git(bare: BareHost) -> None:
    bare.sh(f"cd {SOURCES}; ./inv doctor", 60)
    assert bare.sh("command -v git || true", 60).output == ""
    made = image.load(newest(bare.build).parent)
    assert made.manifest["inputs"]["commit"] is None
    assert made.main.stat().st_size > 100 << 20


def test_it_ends_well_and_tells_what_is_equal(rebuilt: Rebuilt) -> None:
    rebuilt.ended.expect(0)
    told = rebuilt.ended.out
    for name in ("patroni-venv_", "patroni-node_", "consul_", "repository metadata", "base disk", "packages", "wheels"):
        line = next(line for line in told.splitlines() if line.strip().startswith(name))
        assert ": equal, " in line
    known = files.read_json(rebuilt.image.folder / "rebuild.json")
    assert known["equal"]
    assert half_made(rebuilt.build) == []


def same(path: Path, other: Path) -> bool:
    """Whether two files hold the same; a disk of gigabytes is nearly all a hole."""
    if path.suffix == ".raw":
        return files.disk_digest(path) == files.disk_digest(other)
    return filecmp.cmp(path, other, shallow=False)


def test_packages_metadata_and_base_are_the_same_bytes(rebuilt: Rebuilt, bare: BareHost) -> None:
    for pattern in EQUAL:
        path = next(bare.build.glob(pattern))
        other = rebuilt.build / path.relative_to(bare.build)
        assert not path.samefile(other)
        assert same(path, other), f"{path} differs from {other}"


def test_the_files_of_the_golden_image_are_equal(rebuilt: Rebuilt, bare: BareHost) -> None:
    rows = {row["name"]: row for row in files.read_json(rebuilt.image.folder / "rebuild.json")["parts"]}
    row = rows["files of the golden image"]
    assert row["equal"] and row["detail"].endswith(" of them"), row
    assert rebuilt.image.digest != files.read_json(newest(bare.build))["files"][0]["sha256"]


def test_either_machine_makes_the_same_files(rebuilt: Rebuilt, project: Path, playground: Path) -> None:
    """A virtual machine has made the one, of whose manifest a container makes the other."""
    build = copy(rebuilt.build, playground / "contained", (*KEPT, "keyring", *STAGES))
    for name in ("packer", "images"):
        shutil.rmtree(build / name)
    of = newest(rebuilt.build)
    ended = again(build, project, of, "--set", "build.machine=container", seconds=600).expect(0)
    assert "(container)" in ended.err and "(container)" not in rebuilt.ended.err, ended.err
    row = next(line for line in ended.out.splitlines() if line.strip().startswith("files of the golden image"))
    assert row.endswith(" of them") and ": equal" in row, row
    known = files.read_json(newest(build).with_name("rebuild.json"))
    assert known["equal"] and known["other_tools"] == []
    shutil.rmtree(build)


def test_nothing_in_an_image_is_younger_than_its_packages(rebuilt: Rebuilt, tmp_path: Path) -> None:
    """Two builds on one day could be equal in what shows the day."""
    newest = int(files.read_json(next(rebuilt.build.glob("base/*/stage.json")))["inputs"]["date"])
    found = listing.of(rebuilt.image.main, tmp_path / "listing")
    assert [path for path, facts in found.items() if facts.mtime > newest] == []
    raw = tree.raw(rebuilt.image.main, "qcow2", tmp_path / "disk.raw")
    etc = tree.dump(raw, "/etc", tmp_path) / "etc"
    for name in ("shadow", "shadow-"):
        days = {row.split(":")[2] for row in (etc / name).read_text().splitlines()}
        assert days == {str(epoch.day(newest))}
    raw.unlink()


def test_other_sources_are_refused_before_anything_is_made(
    scratch: Scratch, manifest: Path, project: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other, symlinks=True)
    (other / "debian/rules").write_text("all:\n")
    build = scratch()
    again(build, other, manifest).refused(2, "this checkout is not what", "debian/rules: differs", "hint: ")
    assert results(build) == set()


def test_what_cannot_be_had_is_named_at_once_and_nothing_else_is_taken(
    built: Path, playground: Path, manifest: Path, project: Path
) -> None:
    build = copy(built, playground / "poor", KEPT)
    wrong, lost = next(build.glob("pool/netbase_*.deb")), next(build.glob("pool/less_*.deb"))
    wheel = next(build.glob("wheels/idna-*.whl"))
    for path in (wrong, lost, wheel):
        path.unlink()
    wrong.write_bytes(b"!<arch>\n")
    again(build, project, manifest, "--offline").refused(4, "3 recorded files", "netbase ", "less ", "idna-")
    assert results(build) == set() and not wrong.exists()
    shutil.rmtree(build)


def test_a_difference_is_an_error(scratch: Scratch, manifest: Path, project: Path, tmp_path: Path) -> None:
    """Everything is reused, and the manifest is one of another base."""
    build = scratch(*KEPT, "keyring", *STAGES)
    known = files.read_json(manifest)
    known["inputs"]["base"]["sha256"] = "0" * 64
    files.write_json(tmp_path / "manifest.json", known)
    ended = again(build, project, tmp_path / "manifest.json", "--offline")
    ended.refused(16, "is not equal to it", f"base disk: DIFFERS (reused), recorded {'0' * 64}", "rebuild.json")
    assert [row["name"] for row in differing(build)] == ["base disk"]


def differing(build: Path) -> list[dict[str, str]]:
    """The rows of the newest image's comparison that are failures."""
    folder = str((files.read_json(build / "images/debian-12.json") or {})["folder"])
    known = files.read_json(build / "images" / folder / "rebuild.json")
    return [row for row in known["parts"] if row["required"] and not row["equal"]]


def made(folder: Path, root: Path) -> dict[str, listing.File]:
    """A disk with these files, made and read as an image is."""
    folder.mkdir()
    raw, size, who = folder / "disk.raw", 256 * disk.MIB, disk.Identity.of("a test")
    with raw.open("wb") as stream:
        stream.truncate(size)
    disk._partition(raw, size, who)
    ext4.build(root, ext4.Place(raw, disk.ROOT_AT, disk._root_size(size), who.root_fs, "root"), 2000)
    return listing.of(raw, folder / "listing")


def test_the_comparison_sees_what_it_should(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for name in ("content", "mode", "owner", "mtime", "attributes", "same"):
        files.write(root / "etc" / name, name)
    (root / "etc/link").symlink_to("same")
    before = made(tmp_path / "a", root)
    assert listing.compare(before, made(tmp_path / "again", root)) == []
    (root / "etc/content").write_text("other")
    (root / "etc/mode").chmod(0o600)
    os.chown(root / "etc/owner", 1, 1)
    os.utime(root / "etc/mtime", (1000, 1000))
    # cap_net_raw=ep, as linux/capability.h has it: struct vfs_cap_data.
    os.setxattr(root / "etc/attributes", "security.capability", bytes.fromhex("0100000200200000" + 12 * "00"))
    (root / "etc/link").unlink()
    (root / "etc/link").symlink_to("other")
    (root / "etc/new").write_text("new")
    differ = listing.compare(before, made(tmp_path / "b", root))
    assert differ == [
        "/etc/attributes: attributes",
        "/etc/content: content",
        "/etc/link: content",
        "/etc/mode: mode",
        "/etc/mtime: mtime",
        "/etc/new: only in the second",
        "/etc/owner: owner",
    ]
