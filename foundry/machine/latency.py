"""A slow cable: every frame between a port and its switch arrives later, in both directions.

Not by the kernel's netem, which many a container host's kernel lacks ("Specified qdisc kind is unknown"), but by
VDE's wirefilter. It joins two of VDE's own switches, so each end of the cable gets one, tied to a bridge by a tap
device:

    port - bridge - tap - vde_switch - wirefilter - vde_switch - tap - the switch

The three programs share a pid namespace whose first process is wirefilter: they live and die together, and their
sockets are in a file system of that namespace. Needs root.
"""

from __future__ import annotations

from pathlib import Path

from foundry import run
from foundry.machine import wait
from foundry.run import Process

START_SECONDS = 20.0
_START = """
mount -t tmpfs tmpfs /run
vde_switch --daemon --sock /run/near --tap "$1"
vde_switch --daemon --sock /run/far --tap "$2"
# It ends with its input: this pipe has a writer for ever.
mkfifo /run/input
exec wirefilter --vde-plug /run/near:/run/far --delay "$3" <>/run/input
"""


class SlowCable:
    """In place of a port's plain cable to a switch, from `start` to `stop`. space: the network namespace of both."""

    def __init__(self, space: Path, port: str, switch: str) -> None:
        self.space = space
        self.port = port
        self.switch = switch
        self.bridge, self.near, self.far = f"{port}d", f"{port}a", f"{port}b"
        self._process: Process | None = None

    def start(self, milliseconds: int) -> None:
        """Delay every frame from now on. Raises ToolMissing without vde2, GuestError when its programs do not run."""
        run.find("wirefilter", "vde2")
        self._ip("link", "add", self.bridge, "type", "bridge")
        self._ip("link", "set", self.bridge, "up")
        for tap, bridge in ((self.near, self.bridge), (self.far, self.switch)):
            self._ip("tuntap", "add", "dev", tap, "mode", "tap")
            self._ip("link", "set", tap, "master", bridge, "up")
        words = [*self._enter(), *run.contained(["sh", "-euc", _START, "sh", self.near, self.far, str(milliseconds)])]
        self._process = Process(words, name=f"wirefilter-{self.port}")
        self._process.follow()
        wait.until(self._carries, what="wirefilter", timeout=START_SECONDS, dead=self._dead, interval=0.05)
        self._ip("link", "set", self.port, "master", self.bridge)

    def _carries(self) -> tuple[bool, object]:
        """A tap device has a carrier while a program has it open."""
        found = [self._ip("link", "show", tap) for tap in (self.near, self.far)]
        return all("LOWER_UP" in line for line in found), found

    def _dead(self) -> str | None:
        if self._process is None or self._process.poll() is None:
            return None
        return f"ended with code {self._process.poll()}: {' '.join(self._process.tail)}"

    def stop(self) -> None:
        """Put the plain cable back."""
        self._ip("link", "set", self.port, "master", self.switch, check=False)
        if self._process:
            self._process.stop(grace=0)
        self._process = None
        for device in (self.near, self.far, self.bridge):
            self._ip("link", "delete", device, check=False)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--net={self.space}"]

    def _ip(self, *words: str, check: bool = True) -> str:
        found = run.run([*self._enter(), "ip", *words], name="ip", on_line=None, check=check, cleaning=not check)
        return found.output
