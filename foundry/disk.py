"""A bootable disk from a folder: GPT, GRUB for BIOS and for UEFI, ext4.

No loop device and no mount: e2fsprogs, mtools and we write every part by its offset into one sparse file.
"""

from __future__ import annotations

import json
import shutil
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

from foundry import ext4, files, run
from foundry.errors import FoundryError

SECTOR = 512
MIB = 1024 * 1024
BIOS_BOOT_AT = 1 * MIB
ESP_AT = 2 * MIB
ESP_SIZE = 64 * MIB
ROOT_AT = ESP_AT + ESP_SIZE
# Type GUIDs: UEFI Specification 2.10 section 5.3.3 (ESP), GRUB manual "BIOS installation" (BIOS boot),
# Discoverable Partitions Specification (root x86-64).
BIOS_BOOT_TYPE = "21686148-6449-6E6F-744E-656564454649"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
BIOS_MODULES = (
    "biosdisk",
    "part_gpt",
    "ext2",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "gzio",
    "serial",
    "terminal",
    "echo",
)


@dataclass(frozen=True)
class Identity:
    """The UUIDs of a disk, made from a seed: the same inputs give the same disk."""

    disk: str
    bios: str
    esp: str
    root: str
    root_fs: str
    esp_volume: str

    @classmethod
    def of(cls, seed: str) -> Identity:
        def make(part: str) -> str:
            return str(uuid.uuid5(uuid.NAMESPACE_OID, f"patroni-foundry {seed} {part}"))

        volume = make("esp volume")[:8].upper()
        return cls(make("disk"), make("bios"), make("esp"), make("root"), make("root fs"), volume)

    @property
    def esp_uuid(self) -> str:
        """The ESP's UUID as udev and fstab spell it."""
        return f"{self.esp_volume[:4]}-{self.esp_volume[4:]}"


def build(root: Path, disk: Path, size: int, identity: Identity, epoch: int) -> None:
    """Make the raw sparse file disk of size bytes from the root file system in the folder root.

    epoch: the date of what has no older one. The same files, identity and epoch give the same bytes.
    root must hold GRUB's packages (grub-pc-bin, grub-efi-amd64-signed, shim-signed) and a kernel. Raises CommandFailed,
    and FoundryError where root does not fit.
    """
    used = int(run.capture(["du", "-s", "-B1", root], name="du").split()[0])
    if used * 1.1 > size - ROOT_AT:
        raise FoundryError(
            f"base: {files.human(used)} of files do not fit on a disk of {files.human(size)}",
            hint="raise disk_size in foundry.yml",
        )
    core = _bios_core(root, identity)
    with disk.open("wb") as stream:
        stream.truncate(size)
    _partition(disk, size, identity)
    _write_bios_boot(root, core, disk)
    _write_esp(root, disk, identity, epoch)
    ext4.build(root, ext4.Place(disk, ROOT_AT, _root_size(size), identity.root_fs, "root"), epoch)


def _partition(disk: Path, size: int, identity: Identity) -> None:
    def row(at: int, length: int, kind: str, name: str, guid: str) -> str:
        return f"start={at // SECTOR}, size={length // SECTOR}, type={kind}, name={name}, uuid={guid}"

    # The last 33 sectors belong to the backup GPT; a whole MiB is left so that the root's end stays aligned.
    table = "\n".join(
        [
            "label: gpt",
            f"label-id: {identity.disk}",
            "first-lba: 34",
            row(BIOS_BOOT_AT, ESP_AT - BIOS_BOOT_AT, BIOS_BOOT_TYPE, "bios", identity.bios),
            row(ESP_AT, ESP_SIZE, ESP_TYPE, "esp", identity.esp),
            row(ROOT_AT, _root_size(size), ROOT_TYPE, "root", identity.root),
        ]
    )
    script = disk.with_suffix(".sfdisk")
    files.write(script, table + "\n")
    with script.open("rb") as stream:
        run.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk], stdin=stream)
    script.unlink()


def _root_size(size: int) -> int:
    return (size - ROOT_AT - MIB) // MIB * MIB


def _bios_core(root: Path, identity: Identity) -> bytes:
    """GRUB's core image for BIOS, made by the target's own grub-mkimage; its modules go to /boot/grub as well.

    As with grub-install, that folder gets what GRUB itself reads, and none of its tools.
    """
    modules = root / "boot/grub/i386-pc"
    modules.mkdir(parents=True, exist_ok=True)
    for kind in ("mod", "lst"):
        for path in sorted((root / "usr/lib/grub/i386-pc").glob(f"*.{kind}")):
            shutil.copyfile(path, modules / path.name)
    early = root / "boot/grub/early.cfg"
    early.write_text(f"search.fs_uuid {identity.root_fs} root\nset prefix=($root)/boot/grub\n", encoding="utf-8")
    command = ["grub-mkimage", "-O", "i386-pc", "-o", "/boot/grub/i386-pc/core.img", "-c", "/boot/grub/early.cfg"]
    run.run(run.contained(["chroot", str(root), *command, "-p", "/boot/grub", *BIOS_MODULES]), name="grub-mkimage")
    early.unlink()
    return (modules / "core.img").read_bytes()


def _write_bios_boot(root: Path, core: bytes, disk: Path) -> None:
    """What grub-bios-setup does, without a block device: GRUB 2.06, util/setup.c and grub-core/boot/i386/pc/boot.S.

    boot.img holds the sector of core.img at 0x5c; its drive check at 0x66 is switched off as for every hard disk;
    the first sector of core.img holds, at 0x1f4, where its rest begins.
    """
    if len(core) > ESP_AT - BIOS_BOOT_AT:
        raise FoundryError(
            f"base: GRUB's core image has {len(core)} bytes and does not fit into the BIOS boot partition"
        )
    boot = bytearray((root / "usr/lib/grub/i386-pc/boot.img").read_bytes())
    first = BIOS_BOOT_AT // SECTOR
    struct.pack_into("<Q", boot, 0x5C, first)
    boot[0x66:0x68] = b"\x90\x90"
    patched = bytearray(core)
    struct.pack_into("<Q", patched, 0x1F4, first + 1)
    with disk.open("r+b") as stream:
        stream.write(boot[:440])
        stream.seek(BIOS_BOOT_AT)
        stream.write(patched)


def _write_esp(root: Path, disk: Path, identity: Identity, epoch: int) -> None:
    """The removable-media path of UEFI with Debian's signed shim and GRUB, so that Secure Boot works.

    Debian's signed GRUB reads /EFI/debian/grub.cfg of the partition that it came from.
    """
    esp = disk.with_suffix(".esp")
    esp.unlink(missing_ok=True)
    # mtools(1) takes its times from it. FAT has local time.
    dated = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC"}
    words: list[str | Path] = ["mkfs.vfat", "--invariant", "-F", "32", "-n", "ESP", "-i", identity.esp_volume]
    run.run([*words, "-C", esp, str(ESP_SIZE // 1024)])
    config = disk.with_suffix(".efi.cfg")
    files.write(
        config,
        f"search.fs_uuid {identity.root_fs} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n",
    )
    run.run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"], env=dated)
    for source, target in (
        (root / "usr/lib/shim/shimx64.efi.signed", "::/EFI/BOOT/BOOTX64.EFI"),
        (root / "usr/lib/shim/mmx64.efi.signed", "::/EFI/BOOT/mmx64.efi"),
        (root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "::/EFI/BOOT/grubx64.efi"),
        (config, "::/EFI/debian/grub.cfg"),
    ):
        run.run(["mcopy", "-i", esp, source, target], env=dated)
    _copy_sparse(esp, disk, ESP_AT)
    esp.unlink()
    config.unlink()


def _copy_sparse(source: Path, disk: Path, at: int) -> None:
    with source.open("rb") as stream, disk.open("r+b") as target:
        position = at
        while chunk := stream.read(MIB):
            if any(chunk):
                target.seek(position)
                target.write(chunk)
            position += len(chunk)


def root_offset(disk: Path) -> int:
    """Where the root partition of a raw disk begins, in bytes."""
    table = json.loads(run.capture(["sfdisk", "--json", disk], name="sfdisk"))["partitiontable"]
    return int(next(p["start"] for p in table["partitions"] if p["type"] == ROOT_TYPE)) * int(
        table.get("sectorsize", SECTOR)
    )
