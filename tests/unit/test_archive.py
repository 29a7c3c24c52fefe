from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from foundry import archive


def test_a_package_on_another_file_system_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    (tmp_path / "consul.deb").write_bytes(b"deb")
    archive._link(tmp_path / "consul.deb", tmp_path / "pool" / "consul.deb")
    assert (tmp_path / "pool" / "consul.deb").read_bytes() == b"deb"


def test_any_other_failure_to_link_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archive._link(tmp_path / "none", tmp_path / "pool" / "none")
