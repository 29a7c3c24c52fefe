"""The other stores: etcd, and Consul's servers elsewhere, with an agent here or without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry import apt, config, run
from foundry.machine import Machine
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, until
from tests.pipeline.lab import (
    QUICK,
    STORE,
    Lab,
    in_the_switch,
    keeps_its_keys,
    leads,
    servers_hear,
    speaks_https_only,
    whole_cluster,
)

NETWORKS = {"networks": ["10.129.0.0/24"]}


@pytest.fixture(scope="module")
def etcd(built: Path, playground: Path) -> Path:
    """Debian's etcd, unpacked: it is not installed, since its package would start it on the build host."""
    workspace = Workspace(ROOT, built, "etcd")
    cfg = config.load(workspace.config, {})
    resolver = apt.Resolver(workspace, apt.sources(cfg, "bookworm"))
    resolver.update()
    package = next(p for p in resolver.resolve(["etcd-server"], name="etcd") if p.name == "etcd-server")
    resolver.fetch([package])
    deb = next(workspace.pool.rglob(f"*{package.sha256}*"), None) or next(workspace.pool.rglob("etcd-server_*.deb"))
    run.run(["dpkg-deb", "-x", deb, playground / "etcd"], name="dpkg-deb")
    return playground / "etcd/usr/bin/etcd"


def test_etcd(lab: Lab, etcd: Path) -> None:
    node = {**NETWORKS, **QUICK, "dcs": {"etcd3": {"hosts": [f"{STORE}:2379"]}}}
    machines = [lab.boot(lab.spec(n, node), wait=False) for n in (1, 2)]
    url = f"http://{STORE}:2379"
    words = [
        str(etcd),
        f"--data-dir={lab.folder}/etcd",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
    ]
    with in_the_switch(lab, words, 2379):
        for machine in machines:
            machine.wait_ready(180)
        whole_cluster(machines[0], 2)
        assert machines[0].ssh("systemctl is-active consul", check=False).output == "inactive"
        assert not machines[0].ssh("sudo ls /etc/consul.d/", check=False).output.count("patroni-node")
        speaks_https_only(machines[0], "10.129.0.22")
        tls = "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_replication USING (pid)"
        streams = [m.ssh(f'cd /; sudo -u postgres psql -Atc "{tls}"').output for m in machines]
        assert sorted(streams) == ["", "t"], "the replica's connection is encrypted"
        status = json.loads(machines[0].ssh("sudo patroni-node status --json").output)
        assert (status["ok"], status["store"]["kind"], status["store"]["has_leader"]) == (True, "etcd", True)
        assert status["store"]["servers"] == [url]
    lost = machines[0].ssh("sudo patroni-node status", check=False)
    assert lost.returncode == 1
    assert f"etcd at {url} does not answer" in lost.output


@contextmanager
def servers(lab: Lab, consul: Path) -> Iterator[None]:
    """A Consul server of somebody else's."""
    words = [str(consul), "agent", "-server", "-bootstrap-expect=1", f"-data-dir={lab.folder}/consul", "-node=servers"]
    with in_the_switch(lab, [*words, f"-bind={STORE}", f"-client={STORE}"], 8500):
        yield


@pytest.fixture(scope="module")
def consul(built: Path, playground: Path) -> Path:
    """The Consul that the image has, unpacked."""
    deb = max(built.glob("archive/*/pool/consul_*.deb"), key=lambda p: p.stat().st_mtime)
    run.run(["dpkg-deb", "-x", deb, playground / "consul"], name="dpkg-deb")
    return playground / "consul/usr/bin/consul"


def catalog(machine: Machine, at: str, kind: str = "catalog", query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        machine.ssh(f"curl -s 'http://{at}/v1/{kind}/service/pg-15-cluster{query}'").output
    )
    return found


def passing(machine: Machine, at: str) -> list[dict[str, Any]]:
    return catalog(machine, at, "health", "?passing")


def test_an_agent_of_servers_elsewhere(lab: Lab, consul: Path) -> None:
    node = {**NETWORKS, "dcs": {"consul": {"mode": "client", "join": [STORE]}}}
    machine = lab.boot(lab.spec(1, node), wait=False)
    with servers(lab, consul):
        machine.wait_ready(180)
        leads(machine, "pg-srv1", "10.129.0.21")
        listed = machine.ssh("consul members").output
        assert [line.split()[3] for line in listed.splitlines() if line.startswith("pg-srv1 ")] == ["client"], listed
        until(lambda: (bool(found := catalog(machine, "127.0.0.1:8500")), found), "the service in the catalog", 30)
        # By https: the agent on this node knows the node's certificate.
        until(lambda: (bool(found := passing(machine, "127.0.0.1:8500")), found), "its check passes", 30)
        speaks_https_only(machine, "10.129.0.21")
        written = json.loads(machine.ssh("sudo cat /etc/consul.d/patroni-node.json").output)
        # Certificates and rules are up to those servers.
        assert not {"acl", "cert_file", "key_file", "verify_incoming", "verify_incoming_rpc"} & set(written)


def test_an_agent_elsewhere(lab: Lab, consul: Path) -> None:
    node = {**NETWORKS, "dcs": {"consul": {"mode": "external", "host": STORE}}}
    machine = lab.boot(lab.spec(1, node), wait=False)
    with servers(lab, consul):
        machine.wait_ready(180)
        leads(machine, "pg-srv1", "10.129.0.21")
        assert machine.ssh("systemctl is-active consul", check=False).output == "inactive"
        assert not machine.ssh("sudo ls /etc/consul.d/", check=False).output.count("patroni-node")
        speaks_https_only(machine, "10.129.0.21")
        assert f"Consul at http://{STORE}:8500: answers" in machine.ssh("sudo patroni-node status").output
        until(lambda: (bool(found := catalog(machine, f"{STORE}:8500")), found), "the service in the catalog", 30)


def test_names_in_consul_s_dns(lab: Lab) -> None:
    """As in the tutorial: master.CLUSTER and replica.CLUSTER lead to the members that are so now."""
    nodes = lab.cluster(2)
    ask = "python3 - <<'END'\n" + ASK + "END"

    def answers() -> tuple[bool, object]:
        found = yaml.safe_load(nodes[0].ssh(ask).output)
        return all(len(found[name]) == 1 for name in found) and found["master"] != found["replica"], found

    until(answers, "one leader and one replica in Consul's DNS", 30)
    # Names are for everybody, and nothing else is.
    for node, other in zip(nodes, ("10.129.0.22", "10.129.0.21"), strict=True):
        keeps_its_keys(node)
        assert not servers_hear(node, other)


# A question for addresses by hand (RFC 1035, section 4): the image has no dig.
ASK = """
import socket, struct
def past(data, at):
    while data[at] and data[at] < 192:
        at += 1 + data[at]
    return at + (2 if data[at] else 1)
def ask(name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(5)
        link.sendto(struct.pack(">6H", 7, 256, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, 1, 1), ("127.0.0.1", 8600))
        data = link.recv(4096)
    at, found = past(data, 12) + 4, []
    for _ in range(struct.unpack(">H", data[6:8])[0]):
        at = past(data, at)
        size = struct.unpack(">H", data[at + 8:at + 10])[0]
        found.append(socket.inet_ntoa(data[at + 10:at + 10 + size]))
        at += 10 + size
    return found
for role in ("master", "replica"):
    print(f"{role}: {ask(role + '.pg-15-cluster.service.consul')}")
"""
