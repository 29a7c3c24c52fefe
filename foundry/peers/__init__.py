"""Other tools that make images, each in a tree of its own: the peers of `./inv benchmark --only peers`.

A peer is a tree of Debian with its tool in it, and a recipe: a script that leaves its disk in out/. Every recipe is run
twice, the second time with one file more for the image.
"""

from __future__ import annotations

from dataclasses import dataclass

from foundry.machine import Firmware

_MKOSI = ("mkosi", "apt", "ca-certificates", "cpio", "dosfstools", "e2fsprogs", "fdisk", "kmod", "mtools", "zstd")
_DISKS = ("debootstrap", "dosfstools", "e2fsprogs", "fdisk", "gpg", "qemu-utils", "xz-utils")


@dataclass(frozen=True)
class Peer:
    """A tool. recipe: its folder in recipes/. suite, packages: of the tree that it runs in. wheel: what pip adds to it.

    again: what it does anew after a small change. firmware: what its image boots by. base: whether it begins with a
    plain disk of Debian.
    """

    name: str
    recipe: str
    packages: tuple[str, ...]
    again: str
    suite: str = "bookworm"
    wheel: str = ""
    firmware: Firmware = "bios"
    base: bool = False


PEERS = (
    Peer(
        "mkosi 25",
        "mkosi-25",
        (
            *_MKOSI,
            "debian-archive-keyring",
            "gpg",
            "systemd-boot",
            "systemd-container",
            "systemd-repart",
            "systemd-ukify",
        ),
        "pip, initrd, disk: Debian's packages are in its cache",
        suite="trixie",
        firmware="uefi",
    ),
    Peer(
        "mkosi 14",
        "mkosi-14",
        (*_MKOSI, "debootstrap", "gpg", "systemd-container"),
        "pip, disk: Debian's packages are in its cache",
        firmware="uefi",
    ),
    Peer(
        "vmdb2 0.26",
        "vmdb2",
        ("vmdb2", *_DISKS, "kpartx", "parted", "zerofree"),
        "disk, GRUB: the root file system is in its cache",
    ),
    Peer(
        "diskimage-builder 3.43",
        "diskimage-builder",
        (*_DISKS, "gdisk", "git", "lsof", "procps", "psmisc", "python3-venv", "rsync", "sudo"),
        "all but debootstrap",
        wheel="diskimage-builder==3.43.0",
    ),
    Peer(
        "Packer, apt and pip in the guest",
        "packer",
        ("packer", "openssh-client", "qemu-system-x86", "qemu-utils", "xorriso"),
        "all: another guest",
        base=True,
    ),
)
