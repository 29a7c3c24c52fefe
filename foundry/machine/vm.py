"""A virtual machine: QEMU over the exact bytes of a disk, with its firmware, boot loader and kernel.

The disk is the read-only backing file of an overlay. The network of a machine by itself is QEMU's own, with one port
of the host's loopback forwarded to the guest's sshd; unless the machine is online, nothing of it leaves QEMU. Machines
that share a network have cards on its switch, and QEMU's own for ssh alone, in the namespace of the switch.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from foundry import files, run, sandbox, tree
from foundry.errors import GuestError, ToolMissing
from foundry.machine import Spec, seed, sockets, wait
from foundry.machine.qmp import Monitor
from foundry.machine.seed import StaticAddress
from foundry.machine.ssh import Connection
from foundry.run import Process, Result
from foundry.workspace import OVMF, Workspace

DEFAULT_MAC = "52:54:00:50:47:01"
CONTROL_MAC = "52:54:00:50:47:ff"
CONTROL = StaticAddress("192.0.2.15/24", (("macaddress", CONTROL_MAC),))
"""The card of a machine on a shared network that only ssh comes in by (addresses: RFC 5737, section 3)."""
_START_SECONDS = 15.0
_FORWARD = re.compile(r"HOST_FORWARD\S*\s+\d+\s+127\.0\.0\.1\s+(\d+)")


class VirtualMachine:
    """See foundry.machine.Machine."""

    kind = "vm"

    def __init__(self, spec: Spec, workspace: Workspace) -> None:
        self.spec = spec
        self.workspace = workspace
        self.folder = spec.folder
        self.ssh_config = spec.folder / "ssh_config"
        self.console_log = spec.folder / "console.log"
        self.overlay = spec.folder / "disk.qcow2"
        self._process: Process | None = None
        self._connection: Connection | None = None
        self._sockets: Path | None = None
        self._since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def boot(self) -> None:
        if self._process and self._process.poll() is None:
            raise GuestError(f"{self.spec.name} runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_overlay()
        iso = seed.iso(self.spec.seed, self.folder / "seed.iso")
        self._sockets = self._sockets or sockets.make(self.folder)
        words = self._command(iso)
        self._since = time.monotonic()
        self._process = Process(sandbox.leashed(words), name=f"qemu-{self.spec.name}")
        self._process.follow()
        port = self._forwarded_port()
        control = self._sockets / "ssh"
        proxy = []
        if self.spec.network:
            enter = ["nsenter", f"--net={self.spec.network.switch}"]
            proxy = [*enter, sys.executable, "-m", "foundry.machine.pass_socket", str(port)]
        self._connection = Connection(
            self.spec, self.ssh_config, port, control, self.dead, self.console_log, proxy=proxy
        )

    def _make_overlay(self) -> None:
        if self.overlay.exists():
            return
        run.find("qemu-img", "qemu-utils")
        size = tree.size(self.spec.image, self.spec.format, self.folder)
        if self.spec.disk_gib:
            size = self.spec.disk_gib * 2**30
        # -u: this qemu-img has all rights, and does not open an image that may be anybody's.
        words: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", self.spec.format]
        words += ["-u", "-b", self.spec.image.resolve(), self.overlay, str(size)]
        run.run(words, name=f"overlay-{self.spec.name}", what=f"{self.spec.name}: qemu-img")

    def _command(self, iso: Path) -> list[str]:
        spec = self.spec
        qemu = run.find("qemu-system-x86_64", "qemu-system-x86")
        words = [
            str(qemu),
            "-name",
            spec.name,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-vga",
            "std",
        ]
        # A machine that is online asks for names, as the host's resolv.conf says.
        words += sandbox.qemu(None if spec.online else self.folder / "empty")
        words += ["-machine", "pc", "-m", str(spec.memory_mib), "-smp", str(spec.cpus)]
        # 5-level paging costs an emulated machine seconds and gives it nothing.
        tcg = ["-accel", "tcg,thread=multi", "-cpu", "max,-la57"]
        words += ["-accel", "kvm", "-cpu", "host"] if spec.accelerator == "kvm" else tcg
        if spec.firmware == "uefi":
            words += self._flash()
        words += ["-blockdev", json.dumps(self._disk()), "-device", "virtio-blk-pci,drive=disk,bootindex=1"]
        seed_disk = {"driver": "raw", "node-name": "seed", "read-only": True}
        seed_disk["file"] = {"driver": "file", "filename": str(iso), "read-only": True}
        words += ["-blockdev", json.dumps(seed_disk), "-device", "virtio-blk-pci,drive=seed"]
        words += self._shared_cards()
        words += ["-netdev", self._network(), "-device", f"virtio-net-pci,netdev=net0,id=nic0,mac={self._mac()}"]
        words += ["-device", "virtio-rng-pci"]
        console = f"file,id=console,path={_comma(self.console_log)},append=on"
        words += ["-chardev", console, "-serial", "chardev:console"]
        return [*self._space(), *words, "-qmp", f"unix:{_comma(self._qmp)},server=on,wait=off"]

    @property
    def _qmp(self) -> Path:
        assert self._sockets is not None
        return self._sockets / "qmp"

    def _disk(self) -> dict[str, object]:
        file = {"driver": "file", "filename": str(self.spec.image.resolve()), "read-only": True}
        backing: dict[str, object] = {"driver": self.spec.format, "read-only": True, "file": file}
        if self.spec.format == "qcow2":
            # Whatever the image names as its own.
            backing["backing"] = None
        return {
            "driver": "qcow2",
            "node-name": "disk",
            # The overlay need not survive a crash of this host, and flushes are most of what a disk costs.
            "file": {"driver": "file", "filename": str(self.overlay.resolve()), "cache": {"no-flush": True}},
            "cache": {"no-flush": True},
            "discard": "unmap",
            "backing": backing,
        }

    def _flash(self) -> list[str]:
        code, variables = OVMF / "OVMF_CODE_4M.fd", OVMF / "OVMF_VARS_4M.fd"
        if not code.exists():
            raise ToolMissing("this host has no UEFI firmware for virtual machines", hint="apt-get install ovmf")
        own = self.folder / "uefi-vars.fd"
        if not own.exists():
            shutil.copyfile(variables, own)
        drive = "if=pflash,format=raw,"
        return ["-drive", f"{drive}readonly=on,file={_comma(code)}", "-drive", f"{drive}file={_comma(own)}"]

    def _space(self) -> list[str]:
        return ["nsenter", f"--net={self.spec.network.switch}", "--"] if self.spec.network else []

    def _shared_cards(self) -> list[str]:
        if self.spec.network is None:
            return []
        words = []
        taps = self.spec.network.taps(self.spec.name, self.spec.nics)
        for number, (tap, nic) in enumerate(zip(taps, self.spec.nics, strict=True)):
            words += ["-netdev", f"tap,id=lan{number},ifname={tap},script=no,downscript=no"]
            words += ["-device", f"virtio-net-pci,netdev=lan{number},mac={nic.mac}"]
        return words

    @property
    def _own_address(self) -> StaticAddress | None:
        return CONTROL if self.spec.network else self.spec.seed.static

    def _network(self) -> str:
        static = self._own_address
        words = ["user", "id=net0", f"restrict={'off' if self.spec.online else 'on'}"]
        target = ""
        if static:
            # Without QEMU's IPv6 router systemd-networkd would wait 12 s for one before it is online.
            words += ["ipv4=on", "ipv6=on"]
            words.append(f"net={ipaddress.ip_interface(static.cidr).network}")
            if static.gateway:
                words.append(f"host={static.gateway}")
            target = static.address
        return ",".join([*words, f"hostfwd=tcp:127.0.0.1:0-{target}:22"])

    def _mac(self) -> str:
        static = self._own_address
        return dict(static.match).get("macaddress", DEFAULT_MAC) if static else DEFAULT_MAC

    def _forwarded_port(self) -> int:
        def ask() -> tuple[bool, object]:
            try:
                with Monitor(self._qmp) as monitor:
                    found = _FORWARD.search(monitor.human("info usernet"))
                    return found is not None, found and int(found[1])
            except GuestError as error:
                return False, error.brief

        port = wait.until(
            ask,
            what=f"{self.spec.name}: QEMU",
            timeout=_START_SECONDS,
            dead=self.dead,
            console=self.console_log,
            interval=0.05,
        )
        assert isinstance(port, int)
        return port

    def dead(self) -> str | None:
        """Why this machine cannot answer: it is off, or QEMU ended; None while it runs."""
        if self._process is None:
            return "the machine is off"
        code = self._process.poll()
        if code is None:
            return None
        # Its last words may still be on their way to the log.
        self._process.stop()
        last = self._process.tail[-1] if self._process.tail else ""
        return f"QEMU ended with code {code} {last}".rstrip()

    def wait_ready(self, timeout: float) -> float:
        self._connected().wait_ready(timeout)
        return time.monotonic() - self._since

    def _connected(self) -> Connection:
        if self._connection is None:
            raise GuestError(f"{self.spec.name} was not booted")
        return self._connection

    def ssh(self, command: str, *, timeout: float = 60.0, check: bool = True) -> Result:
        return self._connected().run(command, timeout=timeout, check=check)

    def reboot(self, timeout: float) -> float:
        connection, process = self._connected(), self._process
        assert process is not None
        begin = time.monotonic()
        # Emulated firmware and GRUB run six times slower after a warm reset than in a fresh QEMU.
        with Monitor(self._qmp) as monitor:
            monitor.execute("set-action", reboot="shutdown")
        connection.leave("sudo systemctl reboot")
        wait.until(
            lambda: (process.poll() is not None, "still running"),
            what=f"{self.spec.name}: going down",
            timeout=timeout,
            dead=lambda: None,
            console=self.console_log,
        )
        self._disconnect()
        self.boot()
        self._connected().wait_ready(max(1.0, timeout - (time.monotonic() - begin)))
        return time.monotonic() - begin

    def cut_power(self) -> None:
        if self._process:
            self._process.stop(grace=0)
        self._disconnect()

    def cut_network(self) -> None:
        if self.spec.network:
            self.spec.network.cut(self.spec.name)
        else:
            self._set_link(up=False)

    def restore_network(self) -> None:
        if self.spec.network:
            self.spec.network.restore(self.spec.name)
        else:
            self._set_link(up=True)

    def freeze(self) -> None:
        self._tell("stop")

    def thaw(self) -> None:
        self._tell("cont")

    def _set_link(self, *, up: bool) -> None:
        self._tell("set_link", name="nic0", up=up)

    def _tell(self, command: str, **arguments: object) -> None:
        reason = self.dead()
        if reason:
            raise GuestError(f"{self.spec.name}: {reason}")
        with Monitor(self._qmp) as monitor:
            monitor.execute(command, **arguments)

    def console(self, lines: int = 20) -> str:
        return wait.console_tail(self.console_log, lines)

    def collect_logs(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        kept: list[Path] = []
        if self.console_log.exists():
            kept.append(Path(shutil.copy(self.console_log, folder / f"{self.spec.name}-console.log")))
        if self.dead() is None and self._connection:
            for name, text in self._connection.logs().items():
                kept.append(folder / f"{self.spec.name}-{name}")
                files.write(kept[-1], text)
        return kept

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def stop(self) -> None:
        self._disconnect()
        if self._process:
            self._process.stop()
        self._process = None
        sockets.remove(self._sockets, self.folder)
        self._sockets = None


def _comma(path: Path) -> str:
    return str(path).replace(",", ",,")
