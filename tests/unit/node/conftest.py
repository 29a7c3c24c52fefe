"""A machine made of files and answers: no test here runs a real command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from patroni_node.configure import Machine
from patroni_node.install import NoAccounts
from patroni_node.paths import Paths

KEY = "kJ8sd7f6Qw3rTy0pLmN2"
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


class Node:
    """A root folder with an instance-id, and the machine around it."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.ip = FakeIp({"lo": ["127.0.0.1"], "eth0": ["10.129.0.21", "fe80::1"]}, ["eth0"])
        self.accounts: Any = NoAccounts()
        self.host_name = "pg-srv1"
        self.paths.node_file.parent.mkdir(parents=True)
        self.instance("iid-1")

    def instance(self, text: str) -> None:
        self.paths.instance_id.parent.mkdir(parents=True, exist_ok=True)
        self.paths.instance_id.write_text(text + "\n")

    def write(self, text: str, drop_in: str | None = None) -> None:
        path = self.paths.drop_ins / drop_in if drop_in else self.paths.node_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @property
    def machine(self) -> Machine:
        return Machine(run_ip=self.ip, host_name=self.host_name, accounts=self.accounts)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
