"""The packer stage: the base, booted with its network cut off, gets patroni-node by Packer and is sealed.

The build boot needs ssh, yet the image must never have had a key: client and host key reach the guest as a systemd
credential (systemd-tmpfiles(8), tmpfiles.extra; a virtual machine's by SMBIOS type 11), and the seal removes what that
wrote.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foundry import archive, deb, files, log, packer, run, sandbox, stages, threads
from foundry.base import Base
from foundry.config import Config, Image
from foundry.errors import FoundryError
from foundry.machine import build_container, kvm
from foundry.settings import Build
from foundry.workspace import Workspace

DISK = "disk.raw"
LABEL = "FOUNDRYREPO"
PACKAGES = ("patroni-node",)
"""patroni-venv is in the base already."""
MOUNT_POINT = "/run/patroni-foundry"
"""Where install.sh looks for the repository."""
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
    """The sealed disk as Packer left it (raw, sparse); fresh: this very run made it and took its digest."""

    folder: Path
    key: str
    fresh: bool

    @property
    def disk(self) -> Path:
        return self.folder / DISK


def build(config: Config, image: Image, base: Base, debs: deb.Debs, workspace: Workspace) -> Golden:
    """Run Packer, or find its result. Raises CommandFailed, CorruptArtifact, GuestError."""
    machine = choose_machine(config.build, base, workspace)
    inputs = {
        "base": base.digest,
        "machine": machine,
        f"package {debs.node.name}": files.sha256(debs.node),
        **files.tree_digests([workspace.packer], workspace.root),
        **stages.recipe(packer, build_container, sys.modules[__name__]),
        "packer": ".".join(map(str, packer.version())),
    }
    decision = stages.decide(workspace, "packer", inputs)

    def act(scratch: Path) -> None:
        files.need_space(workspace.build, 3_000_000_000, "packer")
        work = scratch / "work"
        work.mkdir(mode=0o700)
        given = _Given(config, base, _repository(debs, image.suite, workspace, work), *_keys(work), work, workspace)
        make = _in_container if machine == "container" else _in_vm
        threads.together(lambda: make(given), lambda: stages.checked(base.folder, base.image.name))
        os.replace(work / "output" / DISK, scratch / DISK)
        shutil.rmtree(work)

    return Golden(stages.perform(workspace, decision, act), decision.key, fresh=not decision.reuse)


def choose_machine(wanted: Build, base: Base, workspace: Workspace) -> Literal["vm", "container"]:
    """What the image is built in: where a virtual machine would be emulated, "auto" takes a container.

    Raises FoundryError where a container is asked for by name and none can be booted.
    """
    if wanted.machine == "vm" or (wanted.machine == "auto" and wanted.accelerator == "kvm"):
        return "vm"
    open_ = wanted.machine == wanted.accelerator == "auto"
    if open_ and kvm.probe(base.kernel, base.initrd, workspace).usable:
        return "vm"
    why = build_container.obstacle()
    if why is None:
        return "container"
    if wanted.machine == "container":
        raise FoundryError(f"build.machine: no container can be booted here: {why}", hint="set it to auto or vm")
    log.info(f"the image is built in a virtual machine, since no container can be booted here ({why})")
    return "vm"


@dataclass(frozen=True)
class _Given:
    """What a build machine gets. repository: a folder. rules: of tmpfiles.d, which bring the keys of this build."""

    config: Config
    base: Base
    repository: Path
    key: Path
    rules: str
    work: Path
    workspace: Workspace

    @property
    def console(self) -> Path:
        return self.workspace.logs / "packer-console.log"

    @property
    def variables(self) -> dict[str, str]:
        """Packer's, of either machine."""
        return {
            "repository_label": LABEL,
            "packages": " ".join(PACKAGES),
            "epoch": str(self.base.epoch),
            "ssh_key": str(self.key),
            "scripts": str(self.workspace.packer / "scripts"),
            "boot_timeout": f"{self.config.build.boot_timeout_s}s",
        }


def _in_container(given: _Given) -> None:
    base, work = given.base, given.work
    log.info(f"booting a copy of the base (container), without a network, to install {' '.join(PACKAGES)}")
    (work / "output").mkdir()
    disk, credential = work / "output" / DISK, work / "tmpfiles"
    run.run(["cp", "--reflink=auto", base.image, disk], name="cp")
    files.write(credential, given.rules, mode=0o600)
    guest = build_container.Guest(
        disk=disk,
        folder=work,
        credential=credential,
        lent=(given.repository.name, MOUNT_POINT),
        words=("cloud-init=disabled", *(f"systemd.mask={unit}" for unit in MASKED)),
        console=given.console,
        seconds=given.config.build.boot_timeout_s,
    )
    with build_container.booted(guest) as space:
        packer.build(given.workspace, work, given.variables, given.console, source="null.golden", space=space)


def _in_vm(given: _Given) -> None:
    base, work, wanted = given.base, given.work, given.config.build
    (work / "empty").mkdir()
    # A file whose name ends in .raw Packer would copy byte by byte, holes included.
    os.link(base.image, work / "base")
    repository = work / "repository.iso"
    run.run(["xorriso", "-as", "genisoimage", "-quiet", "-rock", "-volid", LABEL, "-o", repository, given.repository])
    credentials = work / "credentials"
    encoded = base64.b64encode(given.rules.encode()).decode()
    files.write(credentials, f"io.systemd.credential.binary:tmpfiles.extra={encoded}", mode=0o600)
    accelerator = kvm.accelerator(wanted.accelerator, base.kernel, base.initrd, given.workspace)
    log.info(f"booting a copy of the base ({accelerator}), network cut off, to install {' '.join(PACKAGES)}")
    variables = given.variables | {
        "base": str(work / "base"),
        "kernel": str(base.kernel),
        "initrd": str(base.initrd),
        "append": _kernel_command_line(base),
        "repository": str(repository),
        "credentials": str(credentials),
        "output": str(work / "output"),
        "console": str(given.console),
        "user": f"{sandbox.USER}:{sandbox.USER}",
        "empty": str(work / "empty"),
        "accelerator": "kvm" if accelerator == "kvm" else "tcg,thread=multi",
        # la57 (five-level paging) costs an emulated guest three seconds of page walks at boot.
        "cpu": "host" if accelerator == "kvm" else "max,-la57",
        "cpus": str(wanted.cpus),
        "memory": str(wanted.memory_mib),
    }
    packer.build(given.workspace, work, variables, given.console, source="qemu.golden")


def _kernel_command_line(base: Base) -> str:
    masks = " ".join(f"systemd.mask={unit}" for unit in MASKED)
    address = "ip=10.0.2.15:::255.255.255.0::eth0:none net.ifnames=0"
    # What systemd does is shown, so that a guest that does not come up leaves something to read.
    shown = "console=ttyS0 loglevel=4 systemd.show_status=1"
    return f"root=UUID={base.root_fs} ro {shown} fsck.mode=skip cloud-init=disabled {address} {masks}"


def _repository(debs: deb.Debs, suite: str, workspace: Workspace, work: Path) -> Path:
    """Our package as a signed repository in a folder: no network, and no slow copying through ssh."""
    folder = work / "repository"
    folder.mkdir()
    os.link(debs.node, folder / debs.node.name)
    archive.index_and_sign(workspace, folder, suite)
    return folder


def _keys(work: Path) -> tuple[Path, str]:
    """A fresh client key, and the rules of tmpfiles.d that give the guest it and a fresh host key."""
    for name in ("client", "host"):
        run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "build", "-f", work / name], name="ssh-keygen")

    def line(target: str, source: Path) -> str:
        return f"f+~ {target} 0600 root root - {base64.b64encode(source.read_bytes()).decode()}\n"

    rules = "d /root/.ssh 0700 root root -\n" + line("/root/.ssh/authorized_keys", work / "client.pub")
    return work / "client", rules + line("/etc/ssh/ssh_host_ed25519_key", work / "host")
