"""The packer stage: the base, booted by Packer with its network cut off, gets patroni-node and is sealed.

The build boot needs ssh, yet the image must never have had a key: client and host key reach the guest as a systemd
credential (SMBIOS type 11; systemd-tmpfiles(8), tmpfiles.extra), and the seal removes what that wrote.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from foundry import archive, deb, files, log, packer, run, sandbox, stages, threads
from foundry.base import Base
from foundry.config import Config, Image
from foundry.machine import kvm
from foundry.workspace import Workspace

DISK = "disk.qcow2"
LABEL = "FOUNDRYREPO"
PACKAGES = ("patroni-node",)
"""patroni-venv is in the base already."""
# Nothing of these is needed to install packages, and each costs seconds under emulation.
MASKED = (
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "e2scrub_reap.service",
    "systemd-networkd-wait-online.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "boot-efi.mount",
    "postgresql.service",
    "dbus.service",
    "dbus.socket",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "kmod-static-nodes.service",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "systemd-journal-flush.service",
    "systemd-update-utmp.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    *(f"modprobe@{module}.service" for module in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop")),
    "systemd-logind.service",
    "systemd-fsck-root.service",
    "systemd-sysctl.service",
    "systemd-user-sessions.service",
    "systemd-update-utmp-runlevel.service",
    # The initrd's udev has seen every disk already, and its links in /dev stay.
    "systemd-udev-trigger.service",
    # It would write a seed of this machine after the seal, at shutdown.
    "systemd-random-seed.service",
)


@dataclass(frozen=True)
class Golden:
    """The sealed disk as Packer left it (qcow2, not compressed); fresh: this very run made it and took its digest."""

    folder: Path
    key: str
    fresh: bool

    @property
    def disk(self) -> Path:
        return self.folder / DISK


def build(config: Config, image: Image, base: Base, debs: deb.Debs, workspace: Workspace) -> Golden:
    """Run Packer, or find its result. Raises CommandFailed, CorruptArtifact, GuestError."""
    inputs = {
        "base": base.digest,
        f"package {debs.node.name}": files.sha256(debs.node),
        **files.tree_digests([workspace.packer], workspace.root),
        **stages.recipe(packer, sys.modules[__name__]),
        "packer": ".".join(map(str, packer.version())),
    }
    decision = stages.decide(workspace, "packer", inputs)

    def act(scratch: Path) -> None:
        files.need_space(workspace.build, 3_000_000_000, "packer")
        work = scratch / "work"
        work.mkdir(mode=0o700)
        (work / "empty").mkdir()
        repository = _repository_disk(debs, image.suite, workspace, work)
        key, credentials = _keys(work)
        accelerator = kvm.accelerator(config.build.accelerator, base.kernel, base.initrd, workspace)
        log.info(f"booting a copy of the base ({accelerator}), network cut off, to install {' '.join(PACKAGES)}")
        console = workspace.logs / "packer-console.log"
        variables = {
            "base": str(base.image),
            "kernel": str(base.kernel),
            "initrd": str(base.initrd),
            "append": _kernel_command_line(base),
            "repository": str(repository),
            "repository_label": LABEL,
            "packages": " ".join(PACKAGES),
            "epoch": str(base.epoch),
            "credentials": str(credentials),
            "ssh_key": str(key),
            "scripts": str(workspace.packer / "scripts"),
            "output": str(work / "output"),
            "console": str(console),
            "user": f"{sandbox.USER}:{sandbox.USER}",
            "empty": str(work / "empty"),
            "accelerator": "kvm" if accelerator == "kvm" else "tcg,thread=multi",
            # la57 (five-level paging) costs an emulated guest three seconds of page walks at boot.
            "cpu": "host" if accelerator == "kvm" else "max,-la57",
            "cpus": str(config.build.cpus),
            "memory": str(config.build.memory_mib),
            "boot_timeout": f"{config.build.boot_timeout_s}s",
        }
        threads.together(
            lambda: packer.build(workspace, work, variables, console),
            lambda: stages.checked(base.folder, base.image.name),
        )
        os.replace(work / "output" / DISK, scratch / DISK)
        shutil.rmtree(work)

    return Golden(stages.perform(workspace, decision, act), decision.key, fresh=not decision.reuse)


def _kernel_command_line(base: Base) -> str:
    masks = " ".join(f"systemd.mask={unit}" for unit in MASKED)
    address = "ip=10.0.2.15:::255.255.255.0::eth0:none net.ifnames=0"
    # What systemd does is shown, so that a guest that does not come up leaves something to read.
    shown = "console=ttyS0 loglevel=4 systemd.show_status=1"
    return f"root=UUID={base.root_fs} ro {shown} fsck.mode=skip cloud-init=disabled {address} {masks}"


def _repository_disk(debs: deb.Debs, suite: str, workspace: Workspace, work: Path) -> Path:
    """Our package as a signed repository on an ISO 9660 image: no network, and no slow copying through ssh."""
    folder = work / "repository"
    folder.mkdir()
    os.link(debs.node, folder / debs.node.name)
    archive.index_and_sign(workspace, folder, suite)
    target = work / "repository.iso"
    run.run(["xorriso", "-as", "genisoimage", "-quiet", "-rock", "-volid", LABEL, "-o", target, folder])
    shutil.rmtree(folder)
    return target


def _keys(work: Path) -> tuple[Path, Path]:
    """A fresh client key, and the file with the SMBIOS string that gives the guest it and a fresh host key."""
    for name in ("client", "host"):
        run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "build", "-f", work / name], name="ssh-keygen")

    def line(target: str, source: Path) -> str:
        return f"f+~ {target} 0600 root root - {base64.b64encode(source.read_bytes()).decode()}\n"

    rules = "d /root/.ssh 0700 root root -\n" + line("/root/.ssh/authorized_keys", work / "client.pub")
    rules += line("/etc/ssh/ssh_host_ed25519_key", work / "host")
    credential = base64.b64encode(rules.encode()).decode()
    path = work / "credentials"
    files.write(path, f"io.systemd.credential.binary:tmpfiles.extra={credential}", mode=0o600)
    return work / "client", path
