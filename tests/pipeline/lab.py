"""Nodes of the built image as containers on a private network, for tests that need many of them."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from foundry import run
from foundry.machine import MAKERS, Machine, Spec, ssh
from foundry.machine.netns import Network, Nic
from foundry.machine.seed import NodeSeed
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, gone, until

BOOT_SECONDS = 180
CLUSTER = "pg-15-cluster"
# Where what is no node of ours answers on the nodes' network.
STORE = "10.129.0.10"
LIST = "patronictl -c /etc/patroni/patroni.yml list -f json"
CA = "/etc/patroni/tls/ca.pem"
# So that members hear of each other within two seconds, and not within ten.
QUICK = {"patroni": {"bootstrap": {"dcs": {"loop_wait": 2}}}}


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


def static(*addresses: str) -> dict[str, Any]:
    """A network-config that gives eth0, eth1, … these addresses ("10.129.0.21/24"; several of one card by commas)."""
    cards = {f"eth{n}": {"match": {"name": f"eth{n}"}, "addresses": a.split(",")} for n, a in enumerate(addresses)}
    return {"version": 2, "ethernets": cards}


class Lab:
    """Nodes that see each other and nothing else."""

    def __init__(self, built: Path, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(ROOT, built, folder.name)
        self.image = max(built.glob("images/*/*.qcow2"), key=lambda p: p.parent.stat().st_mtime)
        self.private, self.public = ssh.key_pair(folder / "keys")
        self.network = Network()
        self.key = secrets.token_urlsafe(24)
        self.machines: list[Machine] = []
        run.keep_logs_in(folder / "logs")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:
            machine.stop()
        self.network.close()
        gone(self.folder)

    def spec(
        self, number: int, node: Mapping[str, Any] | str | None, *addresses: str, name: str = "", **more: Any
    ) -> Spec:
        """A machine whose address is 10.129.0.(20 + number) unless others are given.

        node: its node.yml, to which cluster and key are added; a text is taken as it is; None for none.
        """
        name = name or f"pg-srv{number}"
        own = addresses or (f"10.129.0.{20 + number}/24",)
        text = node
        if isinstance(node, Mapping):
            text = yaml.safe_dump({"cluster": CLUSTER, "secrets": {"key": self.key}, **node}, sort_keys=False)
        ipv6 = any(":" in address for address in own)
        return Spec(
            name=f"{name}-{len(self.machines)}",
            image=self.image,
            seed=NodeSeed(f"i-{secrets.token_hex(6)}", name, text, self.public, network=static(*own)),
            folder=self.folder / f"{name}-{len(self.machines)}",
            private_key=self.private,
            network=self.network,
            # Host names are changed here, and file systems mounted, as on a machine.
            privileged=True,
            nics=tuple(Nic(mac(16 * n + number), ipv6=ipv6) for n in range(len(own))),
            **more,
        )

    def boot(self, spec: Spec, *, wait: bool = True) -> Machine:
        machine = MAKERS["container"](spec, self.workspace)
        self.machines.append(machine)
        machine.boot()
        if wait:
            machine.wait_ready(BOOT_SECONDS)
        return machine

    def again(self, machine: Machine, **changes: Any) -> None:
        """Switch a machine off and on, with another seed."""
        machine.cut_power()
        machine.spec = replace(machine.spec, seed=replace(machine.spec.seed, **changes))
        machine.boot()
        machine.wait_ready(BOOT_SECONDS)

    def cluster(self, count: int, node: Mapping[str, Any] | None = None) -> list[Machine]:
        """Boot nodes 1 to count of one cluster at once, and wait until all of them are in it."""
        joined = {"dcs": {"consul": {"join": [f"10.129.0.{20 + n}" for n in range(1, count + 1)]}}}
        whole = {"networks": ["10.129.0.0/24"], **joined, **QUICK, **(node or {})}
        machines = [self.boot(self.spec(n, whole), wait=False) for n in range(1, count + 1)]
        for machine in machines:
            machine.wait_ready(BOOT_SECONDS)
        whole_cluster(machines[0], count)
        return machines


def members(machine: Machine) -> list[dict[str, Any]]:
    """What patronictl lists; nothing where it cannot."""
    answer = machine.ssh(LIST, check=False).output
    return json.loads(answer) if answer.startswith("[") else []


def roles(machine: Machine) -> list[tuple[str, str, str]]:
    return [(m["Member"], m["Host"], m["Role"]) for m in members(machine)]


def whole_cluster(machine: Machine, count: int) -> list[dict[str, Any]]:
    """Wait until one member leads and all others stream from it."""

    def look() -> tuple[bool, object]:
        found = members(machine)
        states = sorted(m["State"] for m in found)
        return states == ["running", *["streaming"] * (count - 1)], found

    found = until(look, f"a cluster of {count}", 120)
    assert isinstance(found, list)
    return found


def leads(machine: Machine, name: str, host: str) -> None:
    """Wait until this machine leads a cluster of one under a name and an address."""
    until(lambda: (roles(machine) == [(name, host, "Leader")], roles(machine)), f"{name} leads at {host}", 90)


def code(machine: Machine, *words: str) -> str:
    """The status of curl's answer; 000 where there is none, or of a server that it does not believe."""
    ask = "curl --silent --output /dev/null --write-out '%{http_code}'"
    return machine.ssh(f"{ask} {' '.join(words)}", check=False).output


# Status.Ping of Consul's RPC, which asks for no token, in the clear (a zero for pool.RPCConsul, then MessagePack).
# As consul, who is let out to this port: the packet filter refuses it to every other account.
_PING = """sudo -u consul python3 -c '
import socket
with socket.create_connection(("{address}", 8300), timeout=5) as link:
    link.sendall(bytes.fromhex("00") + b"\\x82\\xadServiceMethod\\xabStatus.Ping\\xa3Seq\\x01\\x80")
    try:
        print(link.recv(4096).hex() or "closed")
    except ConnectionResetError:
        print("closed")
'"""


def servers_hear(machine: Machine, address: str) -> bool:
    """Whether a server of Consul answers somebody without certificate and token who asks from another machine."""
    said = machine.ssh(_PING.format(address=address)).output
    assert said == "closed" or "537461747573" in said, said
    return said != "closed"


def speaks_https_only(machine: Machine, host: str) -> None:
    """Patroni's REST API at host has a certificate of the cluster's authority, and no plain http."""
    assert code(machine, f"--cacert {CA} https://{host}:8008/health") == "200"
    assert code(machine, f"http://{host}:8008/health") == "000"
    assert code(machine, f"https://{host}:8008/health") == "000", "nobody else has issued it"


def keeps_its_keys(machine: Machine) -> None:
    """The cluster's keys in Consul are root's, who has the token; a local user sees and changes none."""
    kv = "http://127.0.0.1:8500/v1/kv/service/pg-15-cluster"
    assert "/leader" in machine.ssh("sudo consul kv get -keys service/pg-15-cluster/").output
    assert code(machine, f"{kv}/config") == "403"
    assert code(machine, "-X PUT -d {}", f"{kv}/config") == "403"
    assert code(machine, f"{kv}/?recurse") == "404"


def refusal(machine: Machine) -> str:
    """The sentence of a node that did not start: on the console, in the journal, and above the login prompt."""
    machine.ssh("systemctl start patroni 2>/dev/null || sudo systemctl start patroni", check=False, timeout=120)
    journal = machine.ssh("sudo journalctl -b -u patroni-node -o cat --no-pager").output
    said = [line for line in journal.splitlines() if line.startswith("patroni-node: ")]
    assert said, journal
    issue = machine.ssh("cat /etc/issue.d/patroni-node.issue").output
    assert said[-1] in issue
    states = machine.ssh("systemctl show -P ActiveState patroni consul; systemctl show -P ExecMainStatus patroni-node")
    assert states.output.split() in (["inactive", "inactive", "78"], ["failed", "inactive", "78"]), states.output
    return said[-1]


def write(machine: Machine, path: str, text: str, mode: str = "0600") -> None:
    """Write a file of root's in the guest."""
    machine.ssh(f"printf %s {shlex.quote(text)} | sudo install -m {mode} /dev/stdin {path}")


def feed(machine: Machine, command: str, data: bytes, seconds: float = 60) -> bytes:
    """Run a command in the guest with data as its input, and return what it printed."""
    words = ["ssh", "-F", machine.ssh_config, "node", command]
    done = subprocess.run(words, input=data, capture_output=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stderr.decode(errors='replace')}"
    return done.stdout


@contextmanager
def in_the_switch(lab: Lab, words: list[str], port: int) -> Iterator[None]:
    """A program on the nodes' network, at STORE; the block begins when it listens, and ends it."""
    space = ["ip", "netns", "exec", lab.network.name]
    subprocess.run([*space, "ip", "link", "set", "lo", "up"], check=True)
    subprocess.run([*space, "ip", "address", "replace", f"{STORE}/24", "dev", "br0"], check=True)
    written = lab.folder / "store.log"
    with written.open("wb") as log:
        process = subprocess.Popen([*space, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:

            def listens() -> tuple[bool, object]:
                assert process.poll() is None, written.read_text()
                found = subprocess.run([*space, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
                return f"{STORE}:{port}" in found, found

            until(listens, words[0], 30)
            yield
            assert process.poll() is None, written.read_text()
        finally:
            process.terminate()
            process.wait(20)
