from __future__ import annotations

import time
from pathlib import Path

import pytest

from foundry.errors import GuestError
from foundry.machine import wait


@pytest.fixture
def console(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


def alive() -> None:
    return None


def test_returns_the_value_that_ended_the_wait(console: Path) -> None:
    answers = iter([(False, 1), (False, 2), (True, 3)])
    value = wait.until(lambda: next(answers), what="x", timeout=5, dead=alive, console=console, interval=0)
    assert value == 3


def test_is_bounded_and_tells_the_last_value_and_the_console(console: Path) -> None:
    console.write_text("one\n\x1b[0;32m  OK  \x1b[0m two\r\n\r\n")
    begin = time.monotonic()
    with pytest.raises(GuestError, match="node: ssh: not within 0 s") as caught:
        wait.until(
            lambda: (False, "no banner"),
            what="node: ssh",
            timeout=0.2,
            dead=alive,
            console=console,
            interval=0.05,
        )
    assert time.monotonic() - begin < 3
    assert "no banner" in str(caught.value.details)
    assert str(caught.value.details).endswith("one\n  OK   two")
    assert caught.value.log == console


def test_fails_at_once_when_the_machine_died(console: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(GuestError, match="QEMU ended with code 1"):
        wait.until(lambda: (False, None), what="x", timeout=60, dead=lambda: "QEMU ended with code 1", console=console)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    "line",
    [
        "[    3.1] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "grub rescue> ",
        "You are in emergency mode. After logging in, type",
        "No bootable device.",
        "BdsDxe: No bootable option or device was found.",
    ],
)
def test_fails_at_once_when_the_console_shows_no_way_on(console: Path, line: str) -> None:
    console.write_text(f"booting\n{line}\n")
    begin = time.monotonic()
    with pytest.raises(GuestError) as caught:
        wait.until(lambda: (False, None), what="x", timeout=60, dead=alive, console=console)
    assert line.strip() in caught.value.brief
    assert time.monotonic() - begin < 3


def test_tail_of_a_large_console_is_read_from_its_end(console: Path) -> None:
    console.write_text("".join(f"line {n}\n" for n in range(50_000)))
    assert wait.console_tail(console, 2) == "line 49998\nline 49999"


def test_no_console_yet(tmp_path: Path) -> None:
    assert wait.console_tail(tmp_path / "none") == ""
