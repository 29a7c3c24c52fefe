"""The benchmark of a verification: which numbers of the verdict and its boots become which line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foundry import bench_verify, verify
from foundry.evidence import Boot

BOOT = Boot("booted", 10_000, 0, 60_000, (), (), {"PostgreSQL starts": 40_000, "Patroni leads": 50_000})
VERDICT = verify.Verdict(
    image="0" * 64,
    file="x.qcow2",
    suite="0" * 64,
    machine="vm",
    firmware="bios",
    accelerator="tcg",
    host={},
    started="",
    ended="",
    boot_seconds=70.0,
    reboot_seconds=65.0,
    seconds=240.0,
    outcomes=(
        verify.Outcome("a", "booted", "passed", 20.0),
        verify.Outcome("b", "booted", "passed", 5.0),
        verify.Outcome("c", "rebooted", "passed", 4.0),
    ),
)


@pytest.fixture
def found() -> dict[str, bench_verify.Figure]:
    boots = [BOOT, replace(BOOT, phase="rebooted", milestones={"Patroni leads": 35_000})]
    return {figure.name: figure for figure in bench_verify.figures(VERDICT, boots)}


def test_each_line_is_beside_the_kernels_own_start(found: dict[str, bench_verify.Figure]) -> None:
    assert {name: figure.seconds for name, figure in found.items()} == {
        "kernel and initrd": 10.0,
        "first boot: Patroni leads": 50.0,
        "first boot: it is up": 70.0,
        "first boot: tests": 25.0,
        "restart: Patroni leads": 35.0,
        "restart: it is up": 65.0,
        "restart: tests": 4.0,
        "verification": 240.0,
    }
    assert found["restart: Patroni leads"].ratio == 3.5


def test_the_table(found: dict[str, bench_verify.Figure]) -> None:
    rows = [line.split() for line in bench_verify.table(list(found.values()))]
    assert ["kernel", "and", "initrd", "10.0", "1.0"] in rows
    assert ["verification", "240.0", "24.0"] in rows
