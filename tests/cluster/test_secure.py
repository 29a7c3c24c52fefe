"""docs/node.md, "Clusters of before": they stay as they are, and become what a new one is while clients write."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from foundry.lab.cluster import Cluster
from foundry.lab.judge import judge
from foundry.lab.plan import CA
from foundry.lab.witness import rows, watch
from tests.cluster.conftest import Clusters
from tests.pipeline.harness import ROOT, until

SQL = "cd / && sudo -u postgres psql -XAtc"
SECONDS = 180
STREAMS = "SELECT count(*) FROM pg_stat_replication WHERE state = $$streaming$$"
SECURE_STREAMS = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_replication USING (pid) WHERE s.ssl"
WRITE = "sudo -u nobody curl -sS -X PUT -d x http://127.0.0.1:8500/v1/kv/service/written-by-nobody"


@pytest.fixture(scope="module")
def before(clusters: Clusters) -> Cluster:
    """A cluster as versions without `tls: auto` made it."""
    return clusters.make(protection={"compatibility": 1})


def test_it_is_as_it_was(before: Cluster) -> None:
    machine = before.machines["pg-srv1"]
    assert machine.ssh(WRITE).output == "true"
    for name in before.machines:
        assert json.loads(before.machines[name].ssh("cat /var/lib/patroni-node/security.json").output) == {"version": 1}
        assert before.machines[name].ssh("sudo nft list tables").output == ""


def test_a_new_machine_for_it_is_as_the_others(before: Cluster) -> None:
    """Its node.yml says nothing, as those of before do: it asks them."""
    name = next(m.name for m in before.members() if m.role != "leader")
    renewed(before, name, protection={})
    machine = before.machines[name]
    assert json.loads(machine.ssh("cat /var/lib/patroni-node/security.json").output) == {"version": 1}


def renewed(cluster: Cluster, name: str, protection: dict[str, object]) -> None:
    """Replace a replica's machine by an empty one of the same name and address."""
    node, plan = cluster.nodes[name], cluster.plan
    cluster.machines[name].ssh("sudo systemctl stop patroni consul", timeout=SECONDS)
    cluster.remove(name)
    text = replace(plan, protection=protection).node_yml(node)
    spec = cluster.spec(node, node_yml=text, instance=f"i-{name}-{len(protection)}")
    cluster.boot(node, seed=spec.seed, folder=cluster.folder / "machines" / f"{name}-{plan.tls}")
    cluster.wait_ready([name])
    cluster.wait_formed(3, SECONDS)


def test_it_is_secured_while_clients_write(before: Cluster) -> None:
    leader = before.leader()
    assert leader is not None
    replicas = sorted(set(before.nodes) - {leader})
    for machine in before.machines.values():
        machine.ssh("sudo sed -i '/^compatibility:/d' /etc/patroni/node.yml")
    refused = before.machines[replicas[0]].ssh("sudo patroni-node secure", check=False)
    assert refused.returncode == 69 and f"the leader ({leader}) comes first" in refused.output, refused.output
    with watch(before, "secure") as witness:
        witness.wait_progress(SECONDS, 100)
        for number, name in enumerate((leader, *replicas)):
            witness.note(f"{name} secured")
            said = before.machines[name].ssh("sudo patroni-node secure", timeout=SECONDS).output
            witness.wait_progress(SECONDS, 100)
            left = [before.nodes[n].address for n in replicas[number:]]
            assert all(address in said for address in left), said
            # Who is not done yet goes on streaming.
            assert before.machines[leader].ssh(f"{SQL} '{STREAMS}'").output == "2"
    assert "all members of cluster pg-15-cluster have the protection of today" in said
    before.plan = replace(before.plan, protection={"tls": "auto"})
    before.wait_formed(3, SECONDS)
    judgement = judge(witness.history(), rows(before, witness.run), synchronous=True)
    print("\n".join(judgement.summary()))
    assert judgement.violations == [], "\n".join(judgement.summary())
    assert [one.member for one in judgement.leaderships] == [leader], "\n".join(judgement.summary())
    is_secure(before)


def is_secure(cluster: Cluster) -> None:
    leader = cluster.leader()
    assert leader is not None
    assert cluster.machines[leader].ssh(f"{SQL} '{SECURE_STREAMS}'").output == "2"
    for name, machine in cluster.machines.items():
        assert machine.ssh(WRITE).output.endswith("Permission denied")
        url = f"http://{cluster.nodes[name].address}:8008/health"
        assert machine.ssh(f"curl -sS -m 3 {url}", check=False).returncode != 0
        assert "table inet patroni_node" in machine.ssh("sudo nft list tables").output

        def well(name: str = name) -> tuple[bool, object]:
            answer = cluster.machines[name].ssh("sudo patroni-node status", check=False)
            return answer.returncode == 0, answer.output

        until(well, f"{name} is well", SECONDS)
    peers = cluster.machines[leader].ssh("sudo consul operator raft list-peers").output
    assert len(peers.splitlines()) == 4
    assert f"--cacert {CA}" in cluster.plan.ask(cluster.nodes[leader], "/")


def test_what_somebody_has_left_there_before_is_found(before: Cluster) -> None:
    """By the commands of the page, as they stand there."""
    page = (ROOT / "docs/node.md").read_text(encoding="utf-8").partition("It closes the doors")[2]
    commands = page.split("```")[1].strip().splitlines()
    assert len(commands) == 4
    leader = before.leader()
    assert leader is not None
    machine = before.machines[leader]
    create = "sudo consul acl token create -description=left-behind -policy-name=global-management"

    def created() -> tuple[bool, object]:
        answer = machine.ssh(create, check=False)
        assert answer.returncode == 0 or "legacy mode" in answer.output, answer.output
        return answer.returncode == 0, answer.output

    # A server that was secured before the others looks every 30 s whether all of them know tokens, its leader first
    # (Consul 1.8, agent/consul/acl.go, aclModeCheckMaxInterval; leader.go, monitorLeadership).
    until(created, "Consul takes tokens", 120)
    machine.ssh(f"{SQL} 'CREATE ROLE left_behind SUPERUSER LOGIN'")
    tokens, methods, config, roles = (machine.ssh(f"cd / && {command}").output for command in commands)
    assert "left-behind" in tokens
    assert methods == ""
    assert "loop_wait" in config
    assert "left_behind" in roles
    machine.ssh(f"{SQL} 'DROP ROLE left_behind'")


def test_then_a_new_machine_is_secure_too(before: Cluster) -> None:
    """With the node.yml of before, which says nothing of it."""
    name = next(m.name for m in before.members() if m.role != "leader")
    renewed(before, name, protection={})
    assert json.loads(before.machines[name].ssh("cat /var/lib/patroni-node/security.json").output) == {"version": 2}
    is_secure(before)
