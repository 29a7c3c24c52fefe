"""How much a machine was given, from what its kernel and firmware say."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from patroni_node import hardware
from patroni_node.hardware import MIB


class Fake:
    """A root folder with the kernel's files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def total(self, mib: float) -> None:
        self.write("proc/meminfo", f"MemTotal:       {int(mib * 1024)} kB\nMemFree: 1 kB\n")

    def dimm(self, number: int, size: int, extended: int = 0) -> None:
        raw = bytearray(0x28)
        struct.pack_into("<H", raw, 0x0C, size)
        struct.pack_into("<I", raw, 0x1C, extended)
        self.write(f"sys/firmware/dmi/entries/17-{number}/raw", bytes(raw))

    def blocks(self, online: int, offline: int = 0) -> None:
        self.write("sys/devices/system/memory/block_size_bytes", "8000000\n")
        for number in range(online + offline):
            state = "online" if number < online else "offline"
            self.write(f"sys/devices/system/memory/memory{number}/state", f"{state}\n")

    @property
    def mib(self) -> float:
        return hardware.read(self.root).memory / MIB


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_four_gigabytes_are_what_the_machine_was_given(fake: Fake) -> None:
    fake.total(3925.3)
    fake.dimm(0, 4096)
    assert fake.mib == 4096


def test_modules_are_added_up_and_empty_sockets_are_not(fake: Fake) -> None:
    fake.total(48000)
    for number, size in enumerate([16384, 0, 16384, 0xFFFF, 16384]):
        fake.dimm(number, size)
    assert fake.mib == 3 * 16384


def test_a_module_of_32_gigabytes_and_more_has_its_size_elsewhere(fake: Fake) -> None:
    fake.total(65000)
    fake.dimm(0, 0x7FFF, 65536)
    assert fake.mib == 65536


def test_a_module_in_kilobytes(fake: Fake) -> None:
    fake.total(15)
    fake.dimm(0, 0x8000 | 16 * 1024)
    assert fake.mib == 16


def test_without_firmware_the_online_blocks_count(fake: Fake) -> None:
    fake.total(3925)
    fake.blocks(32, offline=8)
    assert fake.mib == 4096


def test_with_neither_the_kernels_total_is_rounded_up(fake: Fake) -> None:
    fake.total(3999)
    assert fake.mib == 4032


def test_firmware_that_promises_far_more_than_there_is_is_not_believed(fake: Fake) -> None:
    """A balloon took memory back, or the hypervisor describes the host."""
    fake.total(3925)
    fake.dimm(0, 0x7FFF, 65536)
    fake.blocks(32)
    assert fake.mib == 4096


def test_firmware_that_knows_of_less_than_the_kernel_is_not_believed(fake: Fake) -> None:
    """Memory was plugged in while the machine ran."""
    fake.total(7900)
    fake.dimm(0, 4096)
    assert fake.mib == 7936


def test_a_control_groups_limit_counts(fake: Fake) -> None:
    fake.total(64000)
    fake.write("sys/fs/cgroup/memory.max", f"{2048 * MIB}\n")
    fake.write("sys/fs/cgroup/cpu.max", "150000 100000\n")
    fake.write("sys/devices/system/cpu/online", "0-31\n")
    found = hardware.read(fake.root)
    assert (found.memory, found.cpus) == (2048 * MIB, 2)


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-1", 2), ("0-3,8-11", 8), ("0,2,4", 3)])
def test_cpus_that_are_online(fake: Fake, text: str, count: int) -> None:
    fake.write("sys/devices/system/cpu/online", text + "\n")
    fake.write("sys/fs/cgroup/cpu.max", "max 100000\n")
    assert hardware.read(fake.root).cpus == count


def test_the_disk_is_the_one_that_the_data_will_lie_on(fake: Fake) -> None:
    before = hardware.read(fake.root).disk
    (fake.root / hardware.DATA).mkdir(parents=True)
    assert before == hardware.read(fake.root).disk
    assert before is not None
    assert before > MIB


def test_a_data_folder_that_is_hidden_is_on_the_disk_of_the_folder_above(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`patroni-node tuning` is for every user, and PostgreSQL's folder is not."""
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if "postgresql" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, **options)

    before = hardware.read(fake.root).disk
    monkeypatch.setattr(Path, "stat", stat)
    assert hardware.read(fake.root).disk == before


def test_a_machine_that_says_nothing_gives_no_error(fake: Fake) -> None:
    found = hardware.read(fake.root)
    assert found.memory == 0
    assert found.cpus >= 1
