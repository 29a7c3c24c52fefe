"""A private network for machines without a host's: namespaces with a switch, out of which nothing leads."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from foundry import run
from foundry.workspace import NAMESPACES

_NAME = re.compile(r"pf-(\d+)-[0-9a-f]{6}(?:-\d+)?")


@dataclass(frozen=True)
class Nic:
    """A network card: its MAC address, and which of the network's switches its cable leads to.

    ipv6: whether the guest may use IPv6 there; if so, systemd-networkd waits 12 s for a router that does not come.
    """

    mac: str
    switch: int = 0
    ipv6: bool = False


class Network:
    """Switches in a namespace of their own, and one namespace for each machine. Needs root."""

    def __init__(self) -> None:
        run.find("ip", "iproute2")
        sweep()
        self.name = f"pf-{os.getpid()}-{secrets.token_hex(3)}"
        self._machines: dict[str, str] = {}
        self._ports: dict[str, list[str]] = {}
        self._switches: set[int] = set()
        _ip("netns", "add", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def attach(self, machine: str, nics: Sequence[Nic]) -> Path:
        """Make a machine's namespace with its cards (eth0, eth1, …), cables plugged in; returns the namespace's path.

        A machine that is attached already keeps its cards; what it had set on them is gone, as after switching it off.
        """
        if machine in self._machines:
            space = self._machines[machine]
            for number in range(len(self._ports[machine])):
                _ip("-n", space, "address", "flush", "dev", f"eth{number}")
                _ip("-n", space, "link", "set", f"eth{number}", "down")
        if machine not in self._machines:
            space = f"{self.name}-{len(self._machines)}"
            _ip("netns", "add", space)
            self._machines[machine] = space
            self._ports[machine] = []
            _ip("-n", space, "link", "set", "lo", "up")
            for number, nic in enumerate(nics):
                self._plug(machine, space, number, nic)
        return NAMESPACES / self._machines[machine]

    def _plug(self, machine: str, space: str, number: int, nic: Nic) -> None:
        switch = f"br{nic.switch}"
        if nic.switch not in self._switches:
            _ip("-n", self.name, "link", "add", switch, "type", "bridge")
            _ip("-n", self.name, "link", "set", switch, "up")
            self._switches.add(nic.switch)
        port = f"p{len(self._machines)}n{number}"
        card = ["type", "veth", "peer", "name", f"eth{number}", "address", nic.mac, "netns", space]
        _ip("-n", self.name, "link", "add", port, *card)
        _ip("-n", self.name, "link", "set", port, "master", switch, "up")
        self._ports[machine].append(port)

    def cut(self, machine: str) -> None:
        """Pull a machine's cables out of the switch."""
        self._set(machine, "down")

    def restore(self, machine: str) -> None:
        """Plug them in again."""
        self._set(machine, "up")

    def _set(self, machine: str, state: str) -> None:
        for port in self._ports[machine]:
            _ip("-n", self.name, "link", "set", port, state)

    def close(self) -> None:
        """Remove the namespaces, and with them every card and switch."""
        for space in [*self._machines.values(), self.name]:
            _ip("netns", "delete", space, check=False)
        self._machines.clear()


def sweep() -> None:
    """Remove what a run that was killed has left."""
    for path in NAMESPACES.glob("pf-*"):
        found = _NAME.fullmatch(path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            _ip("netns", "delete", path.name, check=False)


def _ip(*words: str, check: bool = True) -> None:
    run.run(["ip", *words], name="ip", on_line=None, check=check)
