"""A private network for machines without a host's: namespaces with a switch, out of which nothing leads.

Faults are set at the switch, so the machines know nothing of them: cables are pulled, and frames between two machines
are dropped by nftables' bridge family, in one direction or both. Cables can be made slow (foundry/machine/latency.py).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from foundry import run
from foundry.machine import cgroups, owner
from foundry.machine.latency import SlowCable
from foundry.workspace import NAMESPACES

_NAME = re.compile(r"pf-(\d+)-[0-9a-f]{6}(?:-\d+)?")
_FAULTS = "faults"


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
        self._plugged: dict[str, str] = {}
        self._switches: set[int] = set()
        self._slow: dict[str, SlowCable] = {}
        _ip("netns", "add", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def switch(self) -> Path:
        """The path of the switches' own namespace."""
        return NAMESPACES / self.name

    def attach(self, machine: str, nics: Sequence[Nic]) -> Path:
        """Make a machine's namespace with its cards (eth0, eth1, …), cables plugged in; returns the namespace's path.

        A machine that is attached already keeps its cards; what it had set on them is gone, as after switching it off.
        """
        if machine in self._machines:
            space = self._machines[machine]
            for number in range(len(self._ports[machine])):
                _ip("-n", space, "address", "flush", "dev", f"eth{number}")
                _ip("-n", space, "link", "set", f"eth{number}", "down")
        else:
            space = f"{self.name}-{len(self._machines)}"
            _ip("netns", "add", space)
            self._machines[machine] = space
            _ip("-n", space, "link", "set", "lo", "up")
            for number, nic in enumerate(nics):
                port = self._new_port(machine, number)
                card = ["type", "veth", "peer", "name", f"eth{number}", "address", nic.mac, "netns", space]
                _ip("-n", self.name, "link", "add", port, *card)
                self._plug(port, nic.switch)
        return NAMESPACES / self._machines[machine]

    def taps(self, machine: str, nics: Sequence[Nic]) -> list[str]:
        """Make a tap device in the switches' namespace for each card of a virtual machine; returns their names.

        QEMU opens them from within that namespace. A machine that has been here before keeps its own.
        """
        if machine not in self._ports:
            for number, nic in enumerate(nics):
                port = self._new_port(machine, number)
                _ip("-n", self.name, "tuntap", "add", "dev", port, "mode", "tap")
                self._plug(port, nic.switch)
        return list(self._ports[machine])

    def _new_port(self, machine: str, number: int) -> str:
        ports = self._ports.setdefault(machine, [])
        ports.append(f"p{list(self._ports).index(machine) + 1}n{number}")
        return ports[-1]

    def _plug(self, port: str, number: int) -> None:
        self._plugged[port] = self._switch(number)
        _ip("-n", self.name, "link", "set", port, "master", self._plugged[port], "up")

    def _switch(self, number: int) -> str:
        switch = f"br{number}"
        if number not in self._switches:
            _ip("-n", self.name, "link", "add", switch, "type", "bridge")
            _ip("-n", self.name, "link", "set", switch, "up")
            self._switches.add(number)
        return switch

    def join(self, cidr: str) -> list[str]:
        """Give the switches' namespace itself an address on the first switch: for a store, and for clients.

        Returns the words with which a command runs there.
        """
        _ip("-n", self.name, "link", "set", "lo", "up")
        _ip("-n", self.name, "address", "replace", cidr, "dev", self._switch(0))
        return ["nsenter", f"--net={self.switch}"]

    def cut(self, machine: str) -> None:
        """Pull a machine's cables out of the switch."""
        self._set(machine, "down")

    def restore(self, machine: str) -> None:
        """Plug them in again."""
        self._set(machine, "up")

    def drop(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Lose every frame from the first machine of a pair to the second, in place of earlier losses.

        The other direction is a pair of its own. Raises ToolMissing without nft.
        """
        run.find("nft", "nftables")
        rules = [
            f"add rule bridge {_FAULTS} forward iifname {source} oifname {target} drop"
            for one, other in pairs
            for source in self._uplinks(one)
            for target in self._uplinks(other)
        ]
        table = [f"add table bridge {_FAULTS}", f"delete table bridge {_FAULTS}", f"add table bridge {_FAULTS}"]
        chain = f"add chain bridge {_FAULTS} forward {{ type filter hook forward priority 0; }}"
        _nft(self.name, "; ".join([*table, chain, *rules]))

    def split(self, *groups: Iterable[str]) -> None:
        """Let the machines of each group see each other only; who is in no group sees all that are in none."""
        side = {machine: number for number, group in enumerate(groups) for machine in group}
        machines = list(self._ports)
        if not side.keys() <= set(machines):
            raise ValueError(f"{', '.join(sorted(side.keys() - set(machines)))}: no machine of this network")
        self.drop((a, b) for a in machines for b in machines if a != b and side.get(a) != side.get(b))

    def delay(self, machine: str, milliseconds: int) -> None:
        """Make every frame to and from a machine arrive that much later, in place of what it was delayed before.

        Losses that drop or split has set before do not reach this machine any more: set them anew.
        Raises ToolMissing without vde2, GuestError when its programs do not run.
        """
        for port in self._ports[machine]:
            if port in self._slow:
                self._slow.pop(port).stop()
            cable = SlowCable(self.switch, port, self._plugged[port])
            self._slow[port] = cable
            cable.start(milliseconds)

    def _uplinks(self, machine: str) -> list[str]:
        """Where a machine's frames reach the switch."""
        return [self._slow[port].far if port in self._slow else port for port in self._ports[machine]]

    def heal(self) -> None:
        """End the losses of drop and split, and the delays."""
        while self._slow:
            self._slow.popitem()[1].stop()
        self.drop(())

    def _set(self, machine: str, state: str) -> None:
        for port in self._ports[machine]:
            _ip("-n", self.name, "link", "set", port, state)

    def close(self) -> None:
        """Remove the namespaces, and with them every card and switch."""
        while self._slow:
            self._slow.popitem()[1].stop()
        for space in [*self._machines.values(), self.name]:
            _ip("netns", "delete", space, check=False, cleaning=True)
        self._machines.clear()
        self._ports.clear()


def sweep() -> None:
    """Remove what a run that was killed has left."""
    for path in NAMESPACES.glob("pf-*"):
        found = _NAME.fullmatch(path.name)
        if found and not owner.started(int(found[1])):
            _ip("netns", "delete", path.name, check=False, cleaning=True)
    cgroups.sweep()


def _ip(*words: str, check: bool = True, cleaning: bool = False) -> None:
    run.run(["ip", *words], name="ip", on_line=None, check=check, cleaning=cleaning)


def _nft(space: str, script: str) -> None:
    run.run(["ip", "netns", "exec", space, "nft", script], name="nft", on_line=None)
