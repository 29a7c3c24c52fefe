"""A machine made of files and answers: no test here runs a real command."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from patroni_node import derivation
from patroni_node.authority import Member
from patroni_node.decide import Machine
from patroni_node.install import NoAccounts
from patroni_node.paths import Paths
from patroni_node.security import Peer
from patroni_node.tls import Tls

# Hundreds of nodes are configured here; what a guess costs is of no interest to them.
derivation.SCRYPT_COST = 2

KEY = "kJ8sd7f6Qw3rTy0pLmN2"
DATA = Path(__file__).with_name("data")
MINIMAL = f"cluster: pg-15-cluster\nsecrets:\n  key: {KEY}\n"


@pytest.fixture(autouse=True)
def no_real_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **_: Any) -> None:
        raise AssertionError(f"a unit test ran a command: {args}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)


class FakeIp:
    """Answers `ip -j addr` and `ip -j -4|-6 route show default`."""

    def __init__(self, links: dict[str, list[str]], routes4: list[str] = (), routes6: list[str] = ()) -> None:  # type: ignore[assignment]
        self.links = [
            {"ifname": name, "flags": ["UP"], "addr_info": [{"local": text} for text in texts]}
            for name, texts in links.items()
        ]
        self.routes = {"-4": list(routes4), "-6": list(routes6)}

    def __call__(self, arguments: list[str]) -> str:
        if arguments == ["-j", "addr"]:
            return json.dumps(self.links)
        assert arguments[0] == "-j" and arguments[2:] == ["route", "show", "default"], arguments
        return json.dumps([{"dst": "default", "dev": dev} for dev in self.routes[arguments[1]]])


class FakeAccounts(NoAccounts):
    """Has root, postgres and consul, and records who got what."""

    def __init__(self, missing: str = "") -> None:
        self.missing = missing
        self.owned: list[tuple[int, int]] = []

    def ids(self, owner: str, group: str) -> tuple[int, int] | None:
        known = {"root": 0, "postgres": 101, "consul": 102}
        if self.missing in (owner, group):
            raise KeyError(owner)
        return known[owner], known[group]

    def chown(self, descriptor: int, uid: int, gid: int) -> None:
        assert descriptor >= 0
        self.owned.append((uid, gid))


def openssl(arguments: Sequence[str], text: str) -> str:
    """Answers as openssl(1) does about the certificates in data/: node.pem is good for 10.129.0.21, and ca.pem's."""
    good = text.strip() == (DATA / "node.pem").read_text().strip()
    if "-checkip" in arguments:
        fits = good and arguments[-1] == "10.129.0.21"
        return f"IP {arguments[-1]} does {'match' if fits else 'NOT match'} certificate\n"
    assert arguments[0] == "verify"
    ca = Path(arguments[-1]).read_text().strip()
    return "stdin: OK\n" if ca == (DATA / "ca.pem").read_text().strip() else "error stdin: verification failed\n"


def certify(material: bytes, member: Member, present: Tls | None, now: datetime, before: timedelta) -> Tls:
    """Issues the certificate in data/ to everybody."""
    assert len(material) >= 40
    return Tls(*((DATA / name).read_text() for name in ("ca.pem", "node.pem", "node.key")))


class Node:
    """A root folder with an instance-id, and the machine around it."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.ip = FakeIp({"lo": ["127.0.0.1"], "eth0": ["10.129.0.21", "fe80::1"]}, ["eth0"])
        self.accounts: Any = NoAccounts()
        self.host_name = "pg-srv1"
        self.paths.node_file.parent.mkdir(parents=True)
        self.instance("iid-1")
        self.answers: dict[str, Any] = {}
        self.peers: dict[str, Peer] = {}
        self.reloads = 0
        self.memory(4096)

    def of_before(self) -> None:
        """Let it be a node that ran already when nothing protected a cluster yet."""
        self.paths.identity.parent.mkdir(parents=True, exist_ok=True)
        self.paths.identity.write_text('{"instance_id": "iid-1", "name": "pg-srv1"}\n')

    def instance(self, text: str) -> None:
        self.paths.instance_id.parent.mkdir(parents=True, exist_ok=True)
        self.paths.instance_id.write_text(text + "\n")

    def memory(self, mib: int) -> None:
        path = self.paths.root / "proc/meminfo"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"MemTotal: {mib * 1024} kB\n")

    def write(self, text: str, drop_in: str | None = None) -> None:
        path = self.paths.drop_ins / drop_in if drop_in else self.paths.node_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def machine(self) -> Machine:
        return Machine(
            run_ip=self.ip,
            run_openssl=openssl,
            certify=certify,
            look=lambda ip, cluster, password: self.peers.get(str(ip), Peer(ip, plain=False, proved=False)),
            fetch=lambda url, ca: self.answers.get(url),
            reload_units=self._reload,
            host_name=self.host_name,
            accounts=self.accounts,
        )

    def _reload(self) -> None:
        self.reloads += 1


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
