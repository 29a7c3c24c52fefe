"""Machines that boot an image: one small interface, and the makers of it in a plain dict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from foundry.machine.netns import Network, Nic
from foundry.machine.seed import NodeSeed
from foundry.run import Result
from foundry.workspace import Workspace

Firmware = Literal["bios", "uefi"]
Accelerator = Literal["kvm", "tcg"]


@dataclass(frozen=True)
class Spec:
    """What to boot, and on what.

    image: the disk, never written to. format: its qemu-img format. folder: the machine's own (overlay, seed, keys,
    console log; made if missing). private_key: of the key in seed.ssh_public_key. memory_mib: MiB. disk_gib: the size
    of the disk that the guest sees, in GiB; None leaves the image's. firmware, accelerator: of virtual machines only.
    online: whether the guest may reach what the host reaches. network, nics: a network that machines share, and their
    cards on it; a container without one gets its own, with one card that has the MAC of the seed's address, a virtual
    machine gets QEMU's. tmpfs: file systems in memory, as systemd-nspawn(1) has them, of a container, whose own root
    may mount nothing. privileged: a container whose root may do what a virtual machine's may (mount, set its host
    name), and is no prisoner: for an image that was built here.
    """

    name: str
    image: Path
    seed: NodeSeed
    folder: Path
    private_key: Path
    format: str = "qcow2"
    user: str = "debian"
    cpus: int = 2
    memory_mib: int = 2048
    disk_gib: int | None = None
    firmware: Firmware = "bios"
    accelerator: Accelerator = "tcg"
    online: bool = False
    network: Network | None = None
    nics: tuple[Nic, ...] = ()
    tmpfs: tuple[str, ...] = ()
    privileged: bool = False


class Machine(Protocol):
    """A machine. As a context manager it is stopped at the end of the block, whatever happens.

    `boot` must be called by a thread that outlives the machine: the kernel ends the machine together with that thread.
    """

    kind: str
    spec: Spec
    ssh_config: Path
    """An ssh_config(5) file in which the host "node" is this machine."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def boot(self) -> None:
        """Switch the machine on and return at once; a machine that was stopped goes on with the disk it had.

        Raises GuestError when it cannot be started.
        """

    def dead(self) -> str | None:
        """Why this machine cannot answer: it is off, or it ended by itself; None while it runs."""

    def wait_ready(self, timeout: float) -> float:
        """Wait until ssh answers and the boot is over (cloud-init included, failed units or not).

        timeout: seconds. Returns the seconds since `boot`, `reboot` or the last power cut.
        Raises GuestError at once when the machine dies or its console shows that it cannot go on.
        """

    def ssh(self, command: str, *, timeout: float = 60.0, check: bool = True) -> Result:
        """Run a shell command in the guest as the user of spec. timeout: seconds. Raises CommandFailed (if check)."""

    def reboot(self, timeout: float) -> float:
        """Restart the guest in order, and wait until it is ready again; returns the seconds it took."""

    def cut_power(self) -> None:
        """Switch the machine off without a warning; `boot` starts it again from the same disk."""

    def cut_network(self) -> None:
        """Pull the cables; ssh goes with them only where the machine shares no network."""

    def restore_network(self) -> None:
        """Put the cable back."""

    def freeze(self) -> None:
        """Stop the machine between two instructions, as a hypervisor that pauses it does. Raises GuestError."""

    def thaw(self) -> None:
        """Let it go on. Raises GuestError."""

    def console(self, lines: int = 20) -> str:
        """The last lines that the guest wrote to its console."""

    def collect_logs(self, folder: Path) -> list[Path]:
        """Copy console, journal and cloud-init's logs into folder, as far as the guest still answers."""

    def stop(self) -> None:
        """End the machine and everything of it but its folder; does nothing to one that has ended."""


def _vm(spec: Spec, workspace: Workspace) -> Machine:
    from foundry.machine.vm import VirtualMachine

    return VirtualMachine(spec, workspace)


def _container(spec: Spec, workspace: Workspace) -> Machine:
    from foundry.machine.container import Container

    return Container(spec, workspace)


MAKERS: dict[str, Callable[[Spec, Workspace], Machine]] = {"vm": _vm, "container": _container}
