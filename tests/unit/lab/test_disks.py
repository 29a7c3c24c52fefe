"""Which disk a lab boots."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundry import config, image
from foundry.config import Config
from foundry.errors import ConfigError
from foundry.lab import disks
from foundry.workspace import Workspace

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def cfg() -> Config:
    return config.load(PROJECT / "foundry.yml")


MBR = b"\xeb\x63\x90".ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize(("begin", "kind"), [(b"QFI\xfb\0\0\0\3", "qcow2"), (MBR, "raw"), (MBR + b"EFI PART", "raw")])
def test_a_disks_format_is_what_its_first_bytes_say(
    cfg: Config, workspace: Workspace, tmp_path: Path, begin: bytes, kind: str
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(begin)
    assert disks.find(cfg, workspace, str(disk)) == (disk, kind)


@pytest.mark.parametrize("begin", [b"", b"\x55\xaa", b"<html>", MBR[1:] + b"x"])
def test_a_file_that_is_no_disk(cfg: Config, workspace: Workspace, tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "disk.qcow2").write_bytes(begin)
    with pytest.raises(ConfigError, match=f"--image: {tmp_path}/disk.qcow2 is no disk"):
        disks.find(cfg, workspace, f"{tmp_path}/disk.qcow2")


@pytest.mark.parametrize("name", ["none.qcow2", "none.json", ""])
def test_a_path_without_a_file_is_named(cfg: Config, workspace: Workspace, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"--image: there is no file {tmp_path}"):
        disks.find(cfg, workspace, f"{tmp_path}/{name}")


def test_a_name_that_foundry_yml_does_not_have(cfg: Config, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="debian-13"):
        disks.find(cfg, workspace, "debian-13")


def test_no_image_was_built_yet(cfg: Config, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="holds no image"):
        disks.find(cfg, workspace, "")


def test_a_manifest_stands_for_its_image(
    cfg: Config, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Release:
        main = tmp_path / "v1/disk.qcow2"

    Release.main.parent.mkdir()
    Release.main.write_bytes(b"QFI\xfb")
    (tmp_path / "v1/manifest.json").write_text(json.dumps({}))
    monkeypatch.setattr(image, "load", lambda folder: Release() if folder == tmp_path / "v1" else None)
    assert disks.find(cfg, workspace, str(tmp_path / "v1/manifest.json")) == (Release.main, "qcow2")
