"""Whether KVM can be trusted on this host: only a kernel that has booted under it tells."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from foundry import files, log, run, sandbox
from foundry.errors import FoundryError
from foundry.workspace import HOST_BOOT_ID, KVM_DEVICE, Workspace

Choice = Literal["auto", "kvm", "tcg"]
PROBE_SECONDS = 10.0
# Past its own set-up the kernel starts /init, or panics because nothing gave it a root file system: either proves KVM.
_BOOTED = re.compile(r"Run /init as init process|VFS: Unable to mount root fs|No working init found")


@dataclass(frozen=True)
class Probe:
    """usable: whether a kernel has booted under KVM here. reason: why (not), in words."""

    usable: bool
    reason: str


def probe(kernel: Path, initrd: Path | None, workspace: Workspace, *, timeout: float = PROBE_SECONDS) -> Probe:
    """Boot kernel (with initrd) under KVM for at most timeout seconds, and leave no process behind.

    The answer is remembered for this boot of the host, this QEMU and this kernel, so that asking again costs nothing.
    Raises ToolMissing without QEMU.
    """
    qemu = run.find("qemu-system-x86_64", "qemu-system-x86")
    if not KVM_DEVICE.exists():
        return Probe(False, f"this host has no {KVM_DEVICE}")
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Probe(False, f"this user may not open {KVM_DEVICE}: join its group, kvm")
    record = workspace.host_facts / "kvm.json"
    host = {
        "boot": HOST_BOOT_ID.read_text(encoding="ascii").strip(),
        "kernel": files.sha256(kernel),
        "qemu": f"{qemu.resolve()} {qemu.stat().st_mtime_ns} {qemu.stat().st_size}",
    }
    known = files.read_json(record)
    if isinstance(known, dict) and known.get("host") == host:
        return Probe(known["usable"], known["reason"])
    log.activity(f"trying KVM for at most {timeout:.0f} s")
    found = _boot(qemu, kernel, initrd, timeout)
    files.write_json(record, {"host": host, **asdict(found)})
    return found


def remembered(workspace: Workspace) -> bool:
    """Whether KVM was tried since this host booted, with whatever kernel."""
    known = files.read_json(workspace.host_facts / "kvm.json")
    return isinstance(known, dict) and known["host"]["boot"] == HOST_BOOT_ID.read_text(encoding="ascii").strip()


def _boot(qemu: Path, kernel: Path, initrd: Path | None, timeout: float) -> Probe:
    words: list[str | Path] = [qemu, "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-no-user-config"]
    words += ["-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel]
    words += ["-append", "console=ttyS0 panic=-1 ignore_loglevel"]
    if initrd:
        words += ["-initrd", initrd]
    booted = threading.Event()
    ended = threading.Event()

    def read(line: str) -> None:
        if _BOOTED.search(line):
            booted.set()
            ended.set()

    with (
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as empty,
        run.Process(
            sandbox.leashed([*map(str, words), *sandbox.qemu(Path(empty))]), name="kvm-probe", on_line=read
        ) as process,
    ):
        process.follow(then=ended.set)
        ended.wait(timeout)
        code = process.poll()
        # A guest that hangs inside KVM does not let QEMU answer a polite signal.
        process.stop(grace=0)
    if booted.is_set():
        return Probe(True, "a kernel booted under KVM")
    last = process.tail[-1].strip()[:200] if process.tail else "nothing"
    how = f"no kernel came up within {timeout:.0f} s" if code is None else f"QEMU exited {code}"
    return Probe(False, f"{how}; its last output: {last}")


def accelerator(choice: Choice, kernel: Path, initrd: Path | None, workspace: Workspace) -> Literal["kvm", "tcg"]:
    """How to run virtual machines: "tcg" as asked, "kvm" only where a probe succeeded, "auto" whichever works.

    Raises FoundryError when KVM is demanded and does not work here.
    """
    if choice == "tcg":
        return "tcg"
    found = probe(kernel, initrd, workspace)
    if found.usable:
        return "kvm"
    if choice == "kvm":
        raise FoundryError(f"KVM does not work here: {found.reason}", hint="set the accelerator to auto or tcg")
    log.info(f"virtual machines run without KVM, about ten times slower ({found.reason})")
    return "tcg"
