"""`invoke doctor`: what it finds on hosts of several kinds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from foundry import doctor, host, run
from foundry.errors import FoundryError, ToolMissing

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    path = tmp_path / "host.txt"
    path.write_text("# a comment\nqemu-utils  qemu-img\novmf  -\nmtools  mcopy\n")
    return path


def test_tools_there_and_missing(listing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(tool: str, package: str) -> Path:
        if tool == "mcopy":
            raise ToolMissing("no")
        return Path("/usr/bin") / tool

    answer = run.Result(("qemu-img",), 0, "qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright 2003", None)
    monkeypatch.setattr(run, "find", find)
    monkeypatch.setattr(run, "run", lambda *_, **__: answer)
    found = {f.name: f for f in doctor.tools(listing)}
    assert found["qemu-img"] == doctor.Finding("qemu-img", True, True, "7.2.22")
    assert not found["mcopy"].ok
    assert found["mcopy"].advice == "apt-get install mtools"
    assert set(found) == {"qemu-img", "mcopy"}


def test_what_is_needed_and_missing_is_an_error_and_what_is_not_needed_is_none() -> None:
    kvm = doctor.Finding("KVM", False, False, "hangs", "TCG is used")
    doctor.Diagnosis((kvm,)).insist()
    lacking = doctor.Diagnosis((kvm, doctor.Finding("packer", False, True, "not on PATH", "apt-get install packer")))
    with pytest.raises(FoundryError, match="lacks packer") as caught:
        lacking.insist()
    assert caught.value.code == 1
    assert lacking.summary() == [
        "KVM     no       hangs  ->  TCG is used",
        "packer  MISSING  not on PATH  ->  apt-get install packer",
        "this host cannot build images yet",
    ]
    assert lacking.rows()[1]["ok"] is False


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9}))
    found = doctor.disk(tmp_path / "not/made/yet")
    assert (found.ok, found.found) == (False, f"1.0 GB free for {tmp_path}/not/made/yet")
    assert "FOUNDRY_BUILD" in found.advice
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(("kib", "ok"), [(4_000_000, True), (2_000_000, False)])
def test_memory(kib: int, ok: bool) -> None:
    assert doctor.memory(2048, f"MemTotal: 9 kB\nMemAvailable:   {kib} kB\n").ok is ok


def test_memory_that_the_kernel_does_not_tell_is_none() -> None:
    found = doctor.memory(2048, "MemTotal: 9 kB\n")
    assert (found.ok, found.found) == (False, "0 MiB available")


def test_every_line_of_the_projects_list_is_understood() -> None:
    rows = [r.split() for r in (PROJECT / "requirements/host.txt").read_text().splitlines() if not r.startswith("#")]
    assert all(len(row) == 2 for row in rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert ("qemu-utils", "qemu-img") in host.commands(PROJECT / "requirements/host.txt")
