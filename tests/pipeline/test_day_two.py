"""What an administrator does with nodes that run: `patroni-node status` and `patroni-node restart`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundry.machine import Machine
from tests.pipeline.harness import until
from tests.pipeline.lab import Lab, members, whole_cluster

PATRONICTL = "sudo patronictl -c /etc/patroni/patroni.yml"
APPLY = "systemctl restart patroni-node && systemctl reload patroni"
# Started as by a terminal that is closed later on; what it prints and its exit code stay in a file.
IN_BACKGROUND = "sudo systemd-run --quiet --unit day-two --property StandardOutput=file:/run/day-two"
IN_BACKGROUND += " --property StandardError=file:/run/day-two.err patroni-node restart"


RENDERED = {
    "/etc/patroni/patroni.yml",
    *(f"/etc/patroni/tls/{name}" for name in ("ca.pem", "node.pem", "node.key")),
    *(f"/etc/consul.d/patroni-node{name}" for name in (".json", "-ca.pem", "-cert.pem", "-key.pem", "-token")),
    "/etc/consul.d/patroni-node-checks-ca.pem",
    "/etc/systemd/system/consul.service.d/50-patroni-node.conf",
    *(f"/var/lib/patroni-node/{name}" for name in ("identity.json", "security.json", "packet-filter.nft")),
}


@pytest.fixture(scope="module")
def nodes(built: Path, playground: Path) -> Iterator[list[Machine]]:
    """Leader and replica of a cluster of two, which each test leaves as they were."""
    with Lab(built, playground / f"lab-{secrets.token_hex(3)}") as lab:
        found = lab.cluster(2)
        roles = {m["Member"]: m["Role"] for m in members(found[0])}
        yield sorted(found, key=lambda node: roles[node.spec.seed.hostname] != "Leader")


def status(node: Machine, code: int) -> dict[str, Any]:
    """What status says as JSON, and that it ended with this code."""
    done = node.ssh("sudo patroni-node status --json", check=False)
    assert done.returncode == code, done.output
    found: dict[str, Any] = json.loads(done.output)
    assert found["ok"] is (code == 0)
    return found


def healthy(node: Machine) -> dict[str, Any]:
    """Wait until all is well: after a restart the others need a moment to stream again."""

    def look() -> tuple[bool, object]:
        found = json.loads(node.ssh("sudo patroni-node status --json", check=False).output)
        return found["ok"], found

    found = until(look, "a node without problems", 60)
    assert isinstance(found, dict)
    return found


def processes(node: Machine) -> tuple[str, str, str]:
    """The postmaster, Patroni, and the timeline."""
    postmaster = node.ssh("sudo head -n 1 /var/lib/postgresql/15/main/postmaster.pid").output
    patroni = node.ssh("systemctl show -P MainPID patroni").output
    own = next(m for m in members(node) if m["Member"] == node.spec.seed.hostname)
    return postmaster, patroni, str(own["TL"])


def paused(node: Machine) -> bool:
    return "pause: true" in node.ssh(f"{PATRONICTL} show-config").output


def problem(node: Machine, *words: str) -> dict[str, Any]:
    """What status says of a node that has a problem with these words."""
    found = status(node, 1)
    assert [said for said in found["problems"] if all(word in said for word in words)], found["problems"]
    lines = node.ssh("sudo patroni-node status", check=False).output
    assert all(word in lines for word in words), lines
    return found


def test_status_of_nodes_that_are_well_and_of_others(nodes: list[Machine]) -> None:
    for node, role in zip(nodes, ("primary", "replica"), strict=True):
        found = healthy(node)
        assert status(node, 0)["node"]["name"] == node.spec.seed.hostname
        assert (found["member"]["role"], found["member"]["state"]) == (role, "running")
        assert found["cluster"]["leader"] == nodes[0].spec.seed.hostname
        assert {file["path"] for file in found["rendered"]} == RENDERED
        assert {file["current"] for file in found["rendered"]} == {True}
        assert {unit["active"] for unit in found["units"].values()} == {"active"}
        assert node.ssh("patroni-node status", check=False).returncode == 77

    replica = nodes[1]
    files = " ".join(sorted(RENDERED))
    before = replica.ssh(f"sudo sha256sum {files}").output
    replica.ssh("echo 'tags: {clonefrom: true}' | sudo tee -a /etc/patroni/node.yml")
    found = problem(replica, "/etc/patroni/patroni.yml", APPLY)
    assert [file["path"] for file in found["rendered"] if not file["current"]] == ["/etc/patroni/patroni.yml"]
    assert replica.ssh(f"sudo sha256sum {files}").output == before
    replica.ssh(f"sudo sh -c '{APPLY}'")
    healthy(replica)

    # The service must read such a file, too: its sandbox may show it less than a shell sees.
    script = "umask 77; cd /etc/patroni; sed -n 's/^  key: //p' node.yml >/root/key"
    script += "; sed -i 's#^  key: .*#  key: {file: /root/key}#' node.yml"
    replica.ssh(f'sudo sh -c "{script}; {APPLY}"')
    assert "{file: /root/key}" in replica.ssh("sudo cat /etc/patroni/node.yml").output
    healthy(replica)

    replica.ssh("echo 'zzz: [' | sudo tee -a /etc/patroni/node.yml")
    found = problem(replica, "/etc/patroni/node.yml:", "is not valid YAML", APPLY)
    assert replica.ssh("sudo patroni-node restart", check=False).returncode == 78
    replica.ssh("sudo sed -i '/^zzz/d' /etc/patroni/node.yml")

    replica.ssh("sudo systemctl stop consul")
    problem(replica, "Consul does not run on this node", "systemctl start consul")
    assert replica.ssh("sudo patroni-node restart", check=False).returncode == 69
    replica.ssh("sudo systemctl start consul")
    healthy(replica)


def test_restart_changes_processes_and_neither_roles_nor_timeline(nodes: list[Machine]) -> None:
    for node in nodes:
        before = processes(node)
        said = node.ssh("sudo patroni-node restart", timeout=180).output
        after = processes(node)
        assert after[0] != before[0] and after[1] != before[1], said
        assert after[2] == before[2]
        assert not paused(node)
        whole_cluster(node, 2)
        assert healthy(nodes[0])["member"]["role"] == "primary"
    before = processes(nodes[0])
    nodes[0].ssh("sudo patroni-node restart --no-postgresql", timeout=180)
    after = processes(nodes[0])
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]
    assert not paused(nodes[0])
    assert "demot" not in nodes[0].ssh("sudo journalctl -b -u patroni -o cat").output.lower()


def test_restart_that_is_cut_short_resumes(nodes: list[Machine]) -> None:
    leader = nodes[0]
    timeline = processes(leader)[2]
    for moment in ("pause the cluster", "restart Patroni", "restart PostgreSQL"):
        leader.ssh(IN_BACKGROUND)

        def reached(words: str = moment) -> tuple[bool, object]:
            said = leader.ssh("sudo cat /run/day-two /run/day-two.err", check=False).output
            return words in said, said

        until(reached, moment, 60)
        leader.ssh("sudo systemctl kill --signal TERM --kill-whom main day-two")

        def ended() -> tuple[bool, object]:
            state = leader.ssh("systemctl show -P ActiveState day-two").output
            return state in ("failed", "inactive"), state

        until(ended, "the end", 90)
        said = leader.ssh("sudo cat /run/day-two /run/day-two.err").output
        assert "resume the cluster" in said and "interrupted by SIGTERM" in said, said
        leader.ssh("sudo systemctl reset-failed day-two; sudo rm -f /run/day-two /run/day-two.err", check=False)
        assert not paused(leader)
        whole_cluster(leader, 2)
        assert processes(leader)[2] == timeline
        assert healthy(leader)["member"]["role"] == "primary"


def test_a_paused_cluster_is_somebody_else_s(nodes: list[Machine]) -> None:
    leader, replica = nodes
    before = processes(replica)
    leader.ssh(f"{PATRONICTL} pause --wait")
    done = replica.ssh("sudo patroni-node restart", check=False)
    assert done.returncode == 75
    assert processes(replica) == before
    assert paused(replica)
    problem(replica, "MAINTENANCE MODE", "resume pg-15-cluster")
    leader.ssh(f"{PATRONICTL} resume --wait")
    healthy(replica)


def test_status_of_a_node_without_its_parts(nodes: list[Machine]) -> None:
    replica = nodes[1]
    replica.ssh("sudo systemctl stop patroni && sudo mv /etc/patroni/node.yml /etc/patroni/node.kept", timeout=120)
    problem(replica, "Patroni does not run", "systemctl start patroni")
    found = problem(replica, "/etc/patroni/node.yml: is missing")
    assert found["node"]["name"] == replica.spec.seed.hostname
    replica.ssh("sudo systemctl stop consul && sudo mv /etc/patroni/patroni.yml /etc/patroni/patroni.kept")
    assert problem(replica, "Consul does not run")["store"] is None
    replica.ssh("cd /etc/patroni && sudo mv node.kept node.yml && sudo mv patroni.kept patroni.yml")
    replica.ssh("sudo systemctl start consul patroni", timeout=120)
    healthy(replica)


def test_a_patroni_that_does_not_start_leaves_postgresql_and_no_second_primary(nodes: list[Machine]) -> None:
    leader, replica = nodes
    postmaster, _, timeline = processes(leader)
    drop_in = "/etc/systemd/system/patroni.service.d/60-broken.conf"
    text = r"[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n"
    leader.ssh(f"sudo mkdir -p $(dirname {drop_in}) && printf '{text}' | sudo tee {drop_in}")
    leader.ssh("sudo systemctl daemon-reload")
    assert leader.ssh("sudo patroni-node restart", check=False, timeout=180).returncode == 71
    problem(leader, "MAINTENANCE MODE", "Patroni runs here again")
    assert paused(replica)
    leader.ssh(f"sudo rm {drop_in}; sudo systemctl daemon-reload; sudo systemctl start patroni")
    leader.ssh(f"{PATRONICTL} resume --wait")
    assert healthy(leader)["member"]["role"] == "primary"
    assert (processes(leader)[0], processes(leader)[2]) == (postmaster, timeline)
