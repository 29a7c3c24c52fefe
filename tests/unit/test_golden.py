"""What an image is built in."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry import golden
from foundry.base import Base
from foundry.errors import FoundryError
from foundry.machine import build_container, kvm
from foundry.settings import Build
from foundry.workspace import Workspace


def chosen(tmp_path: Path, **wishes: str) -> str:
    base = Base(tmp_path, "key", "uuid", 0)
    return golden.choose_machine(Build.model_validate(wishes), base, Workspace.at(tmp_path))


@pytest.mark.parametrize(
    ("machine", "accelerator", "usable", "obstacle", "expected"),
    [
        ("auto", "auto", True, None, "vm"),
        ("auto", "auto", False, None, "container"),
        ("auto", "auto", False, "no loop device", "vm"),
        ("auto", "kvm", False, None, "vm"),
        ("auto", "tcg", True, None, "container"),
        ("auto", "tcg", True, "no loop device", "vm"),
        ("vm", "auto", False, None, "vm"),
        ("vm", "tcg", False, None, "vm"),
        ("container", "auto", True, None, "container"),
        ("container", "kvm", True, None, "container"),
    ],
)
def test_a_container_is_taken_where_a_machine_would_be_emulated(
    machine: str,
    accelerator: str,
    usable: bool,
    obstacle: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(kvm, "probe", lambda *_: kvm.Probe(usable, "because"))
    monkeypatch.setattr(build_container, "obstacle", lambda: obstacle)
    assert chosen(tmp_path, machine=machine, accelerator=accelerator) == expected


def test_a_container_that_is_asked_for_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build_container, "obstacle", lambda: "no loop device")
    with pytest.raises(FoundryError, match="no container can be booted here: no loop device"):
        chosen(tmp_path, machine="container")
