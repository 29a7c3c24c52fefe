from __future__ import annotations

import struct
from pathlib import Path

import pytest

from foundry import disk, run
from foundry.errors import FoundryError


def test_the_same_inputs_give_the_same_uuids() -> None:
    assert disk.Identity.of("key") == disk.Identity.of("key")
    assert disk.Identity.of("key").root_fs != disk.Identity.of("other").root_fs


def test_esp_uuid_is_spelt_as_udev_does() -> None:
    assert disk.Identity("", "", "", "", "", "1A2B3C4D").esp_uuid == "1A2B-3C4D"


def grub(root: Path) -> Path:
    folder = root / "usr/lib/grub/i386-pc"
    folder.mkdir(parents=True)
    (folder / "boot.img").write_bytes(bytes([0xEB]) * 512)
    return root


def test_boot_sector_points_at_the_core_and_keeps_the_partition_table(tmp_path: Path) -> None:
    target = tmp_path / "disk.raw"
    target.write_bytes(b"\xee" * 512 + bytes(disk.ESP_AT - 512))
    core = bytes(512) + b"\x01" * 1000
    disk._write_bios_boot(grub(tmp_path), core, target)
    written = target.read_bytes()
    assert struct.unpack_from("<Q", written, 0x5C) == (disk.BIOS_BOOT_AT // 512,)
    assert written[0x66:0x68] == b"\x90\x90"
    assert written[440:512] == b"\xee" * 72
    assert struct.unpack_from("<Q", written, disk.BIOS_BOOT_AT + 0x1F4) == (disk.BIOS_BOOT_AT // 512 + 1,)
    assert written[disk.BIOS_BOOT_AT + 512 :][:1000] == b"\x01" * 1000


def test_a_core_too_large_for_its_partition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="does not fit"):
        disk._write_bios_boot(grub(tmp_path), bytes(disk.ESP_AT - disk.BIOS_BOOT_AT + 1), tmp_path / "disk.raw")


def test_grub_finds_its_modules_and_no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run", lambda *a, **k: (tmp_path / "boot/grub/i386-pc/core.img").write_bytes(b"core"))
    modules = grub(tmp_path) / "usr/lib/grub/i386-pc"
    for name in ("linux.mod", "moddep.lst", "grub-bios-setup"):
        (modules / name).touch()
    assert disk._bios_core(tmp_path, disk.Identity.of("key")) == b"core"
    assert sorted(p.name for p in (tmp_path / "boot/grub/i386-pc").iterdir()) == ["core.img", "linux.mod", "moddep.lst"]


def test_root_ends_before_the_backup_table() -> None:
    size = 8 * 1024**3
    assert disk.ROOT_AT + disk._root_size(size) <= size - 33 * 512
    assert disk._root_size(size) % disk.MIB == 0
