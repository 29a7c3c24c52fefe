from __future__ import annotations

from pathlib import Path

import pytest

from foundry import run, tree
from foundry.errors import CorruptArtifact

pytestmark = pytest.mark.real_process
START = 4096 * tree.SECTOR
TABLE = """label: gpt
start=2048, size=1024, type=21686148-6449-6E6F-744E-656564454649
start=4096, size=16384, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a root file system of a few files, as qcow2."""
    folder = tmp_path_factory.mktemp("disk")
    root = folder / "root"
    for name in ("boot/vmlinuz-6.1.0-9-cloud", "boot/vmlinuz-6.1.0-10-cloud", "boot/initrd.img-6.1.0-10-cloud"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "etc").mkdir()
    (root / "etc/secret").write_text("s")
    (root / "etc/secret").chmod(0o640)
    (root / "etc/link").symlink_to("/etc/secret")
    raw = folder / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(12 * 1024 * 1024)
    table = folder / "table"
    table.write_text(TABLE)
    with table.open("rb") as stream:
        run.run(["sfdisk", "-q", raw], stdin=stream)
    run.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, "-E", f"offset={START}", raw, "8M"])
    run.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "disk.qcow2"])
    return folder / "disk.qcow2"


def test_files_modes_and_links_are_read(disk: Path, tmp_path: Path) -> None:
    raw = tree.raw(disk, "qcow2", tmp_path / "disk.raw")
    assert tree.root(raw).offset == START
    found = tree.dump(raw, "/", tmp_path / "a folder")
    assert (found / "etc/secret").read_text() == "s"
    assert (found / "etc/secret").stat().st_mode & 0o777 == 0o640
    assert str((found / "etc/link").readlink()) == "/etc/secret"


def test_the_newest_kernel_and_its_initrd(disk: Path, tmp_path: Path) -> None:
    kernel, initrd = tree.boot_files(tree.raw(disk, "qcow2", tmp_path / "disk.raw"), tmp_path / "boot")
    assert kernel.name == "vmlinuz-6.1.0-10-cloud"
    assert initrd is not None and initrd.name == "initrd.img-6.1.0-10-cloud"


def test_a_disk_without_partitions(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(1024 * 1024))
    with pytest.raises((CorruptArtifact, Exception), match=r"disk\.raw"):
        tree.root(path)


def test_what_cannot_be_read_is_an_error(disk: Path, tmp_path: Path) -> None:
    raw = tree.raw(disk, "qcow2", tmp_path / "disk.raw")
    with pytest.raises(CorruptArtifact, match="/nowhere"):
        tree.dump(raw, "/nowhere", tmp_path / "out")
