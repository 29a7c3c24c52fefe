from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from foundry import run
from foundry.errors import FoundryError
from foundry.machine import kvm
from foundry.workspace import Workspace

pytestmark = pytest.mark.real_process


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, tmp_path / "build", "run")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz"
    path.write_text("kernel")
    return path


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for QEMU that counts its runs; a test writes what else it does."""
    path = tmp_path / "qemu"
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(kvm, "KVM_DEVICE", device)
    monkeypatch.setattr(run, "find", lambda tool, package: path)
    return path


def behave(qemu: Path, body: str) -> None:
    qemu.write_text(f'#!/bin/sh\necho $$ >> "$0.runs"\n{body}\n')
    qemu.chmod(0o755)


def running(qemu: Path) -> list[str]:
    """The processes of the stand-in that live, whatever namespace counts them."""
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(qemu) in words.read_bytes().split(b"\0"):
                found.append(words.parent.name)
    return found


def runs(qemu: Path) -> list[int]:
    return [int(n) for n in Path(f"{qemu}.runs").read_text().split()]


def test_a_guest_that_hangs_is_unusable_within_the_bound(qemu: Path, kernel: Path, workspace: Workspace) -> None:
    behave(qemu, 'trap "" INT TERM; echo SeaBIOS; sleep 600')
    begin = time.monotonic()
    found = kvm.probe(kernel, None, workspace, timeout=0.5)
    assert time.monotonic() - begin < 4
    assert not found.usable
    assert "SeaBIOS" in found.reason
    assert runs(qemu) and not running(qemu)


def test_a_kernel_that_boots_is_believed_at_once(qemu: Path, kernel: Path, workspace: Workspace) -> None:
    behave(qemu, 'echo "[    0.9] Run /init as init process"; sleep 600')
    begin = time.monotonic()
    assert kvm.probe(kernel, None, workspace, timeout=30).usable
    assert time.monotonic() - begin < 5
    assert runs(qemu) and not running(qemu)


def test_qemu_that_aborts_is_unusable_at_once(qemu: Path, kernel: Path, workspace: Workspace) -> None:
    behave(qemu, "echo failed to initialize kvm: Invalid argument >&2; exit 1")
    begin = time.monotonic()
    found = kvm.probe(kernel, None, workspace, timeout=30)
    assert time.monotonic() - begin < 5
    assert not found.usable
    assert "exited 1" in found.reason and "Invalid argument" in found.reason


def test_the_answer_is_remembered_for_this_kernel(qemu: Path, kernel: Path, workspace: Workspace) -> None:
    behave(qemu, "exit 1")
    first = kvm.probe(kernel, None, workspace)
    assert kvm.probe(kernel, None, workspace) == first
    assert len(runs(qemu)) == 1
    kernel.write_text("another")
    kvm.probe(kernel, None, workspace)
    assert len(runs(qemu)) == 2


def test_the_answer_is_forgotten_when_the_host_boots_anew(
    qemu: Path, kernel: Path, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(kvm, "HOST_BOOT_ID", boot)
    behave(qemu, "exit 1")
    for name in ("a", "a", "b"):
        boot.write_text(name)
        kvm.probe(kernel, None, workspace)
    assert len(runs(qemu)) == 2


def test_no_device(qemu: Path, kernel: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "KVM_DEVICE", Path("/nonexistent"))
    assert not kvm.probe(kernel, None, workspace).usable


def test_choices(kernel: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = kvm.Probe(False, "it hangs")
    monkeypatch.setattr(kvm, "probe", lambda *_: answer)
    assert kvm.accelerator("tcg", kernel, None, workspace) == "tcg"
    assert kvm.accelerator("auto", kernel, None, workspace) == "tcg"
    with pytest.raises(FoundryError, match="it hangs"):
        kvm.accelerator("kvm", kernel, None, workspace)
    answer = kvm.Probe(True, "it works")
    assert kvm.accelerator("auto", kernel, None, workspace) == "kvm"
