"""The proof of a disk: booted as a new node of a cloud would be, and how long that takes until cloud-init has ended."""

from __future__ import annotations

import re
import time
from pathlib import Path

from foundry import run
from foundry.machine import Accelerator, Firmware, Spec, wait
from foundry.machine.seed import NodeSeed
from foundry.machine.vm import VirtualMachine
from foundry.workspace import Workspace

DISK_GIB = 8
_FINISHED = re.compile(rb"Cloud-init v\. \S+ finished at")


def compress(source: Path, target: Path) -> int:
    """Make target the qcow2 of a disk, compressed as our own images are; returns its bytes."""
    kind = source.suffix.lstrip(".")
    words: list[str | Path] = ["qemu-img", "convert", "-m", "16", "-W", "-f", kind, "-O", "qcow2"]
    run.run([*words, "-c", "-o", "compression_type=zstd", source, target], name="convert")
    return target.stat().st_size


def seconds(
    disk: Path, firmware: Firmware, accelerator: Accelerator, limit: float, folder: Path, workspace: Workspace
) -> float:
    """From the start of QEMU until the console says that cloud-init has finished. disk: a qcow2, which is only read.

    Raises GuestError with the console's last lines where that does not come within limit seconds.
    """
    who = NodeSeed("peers-1", "peer", None, "")
    spec = Spec(
        "peer",
        disk,
        who,
        folder,
        folder / "no-key",
        accelerator=accelerator,
        firmware=firmware,
        disk_gib=DISK_GIB,
    )
    with VirtualMachine(spec, workspace) as machine:
        begin = time.monotonic()
        machine.boot()

        def finished() -> tuple[bool, object]:
            log = machine.console_log
            return log.exists() and _FINISHED.search(log.read_bytes()) is not None, None

        wait.until(
            finished,
            what="until cloud-init has finished",
            timeout=limit,
            dead=machine.dead,
            console=machine.console_log,
            interval=0.2,
        )
        return time.monotonic() - begin
