"""The disk that a lab's machines boot, and how virtual machines of it run here."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foundry import config, image, tree
from foundry.config import Config
from foundry.errors import ConfigError
from foundry.machine import Accelerator, kvm
from foundry.publish import consumer
from foundry.workspace import Workspace

_QCOW2 = b"QFI\xfb"
# A GPT has one, too, before it (UEFI 2.10, 5.2.3, Protective MBR).
_BOOT_SIGNATURE, _SECTOR = b"\x55\xaa", 512


def find(cfg: Config, workspace: Workspace, wanted: str) -> tuple[Path, str]:
    """The disk to boot, and its format, as its first bytes tell it.

    wanted: a path of a disk or of a manifest, the name of an image in foundry.yml, or "" for the first of these, or
    a channel or a version of the store. Raises ConfigError where there is no such image, or a file that is none.
    """
    path = Path(wanted)
    if "/" not in wanted and (not wanted or wanted in cfg.images):
        path = image.newest(workspace, config.pick_image(cfg, wanted or None)).main
    elif "/" not in wanted:
        path = consumer.published(cfg, workspace, wanted)
    elif path.suffix == ".json" and path.is_file():
        path = image.load(path.parent).main
    if not path.is_file():
        raise ConfigError(f"--image: there is no file {path}")
    with path.open("rb") as stream:
        begin = stream.read(_SECTOR)
    if begin.startswith(_QCOW2):
        return path.resolve(), "qcow2"
    if begin.endswith(_BOOT_SIGNATURE) and len(begin) == _SECTOR:
        return path.resolve(), "raw"
    raise ConfigError(f"--image: {path} is no disk: neither qcow2 nor raw with a partition table")


def accelerator(cfg: Config, disk: Path, kind: str, workspace: Workspace) -> Accelerator:
    """How virtual machines of a disk run here, by trying its own kernel. Raises FoundryError."""
    workspace.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.work, prefix="lab.") as scratch:
        kernel, initrd = tree.boot_files(tree.raw(disk, kind, Path(scratch) / "disk.raw"), Path(scratch) / "boot")
        return kvm.accelerator(cfg.build.accelerator, kernel, initrd, workspace)
