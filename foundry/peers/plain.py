"""A plain disk of Debian, such as a cloud would offer: what Packer begins with. Making it is not measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import jinja2

from foundry import archive, disk, files, run
from foundry.peers.boot import DISK_GIB
from foundry.peers.supply import Supply
from foundry.workspace import Workspace


def build(supply: Supply, epoch: int, target: Path, workspace: Workspace) -> None:
    """Make target (a qcow2) from the packages of archive.BASE_PACKAGES alone. Raises CommandFailed."""
    root, raw = target.with_suffix(".root"), target.with_suffix(".raw")
    identity = disk.Identity.of("peers")
    words = ["mmdebstrap", "--mode=root", "--variant=required", "--format=directory", archive.READ_AS_ROOT]
    words += ["--dpkgopt=force-unsafe-io", f"--include={','.join(archive.BASE_PACKAGES)}"]
    words += ['--customize-hook=systemctl --root="$1" enable systemd-networkd.service']
    run.run(run.contained([*words, supply.suite, str(root), supply.archive.line()]), name="mmdebstrap")
    for name in ("boot/grub/grub.cfg", "etc/fstab"):
        template = workspace.templates / "base/final" / f"{name}.j2"
        text = jinja2.Template(template.read_text(encoding="utf-8"), keep_trailing_newline=True, autoescape=False)
        files.write(root / name, text.render(identity=identity))
    files.write(root / "etc/machine-id", "")
    disk.build(root, raw, DISK_GIB * 2**30, identity, epoch)
    run.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target])
    raw.unlink()
    shutil.rmtree(root)
