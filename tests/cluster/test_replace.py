"""docs/cluster.md, "Replacing nodes by a newer image", done as it says while clients write."""

from __future__ import annotations

from foundry.lab.cluster import Cluster
from foundry.lab.judge import judge
from foundry.lab.witness import rows, watch
from tests.cluster.conftest import Clusters
from tests.pipeline.harness import until

PATRONICTL = "patronictl -c /etc/patroni/patroni.yml"
SECONDS = 120


def voters(cluster: Cluster, on: str) -> list[str]:
    """The servers that Consul lists, as voters that have joined."""
    answer = cluster.machines[on].ssh("sudo consul operator raft list-peers", check=False)
    lines = [line.split() for line in answer.output.splitlines()[1:]] if answer.returncode == 0 else []
    return sorted(words[0] for words in lines if words[4:5] == ["true"])


def replace_node(cluster: Cluster, name: str, other: str, instance: str | None) -> None:
    """Steps 2 to 5. other: a node that stays. instance: the new machine's instance-id; None for the old one's."""
    node, old = cluster.nodes[name], cluster.machines[name]
    old.ssh("sudo systemctl disable --now patroni consul", timeout=SECONDS)
    cluster.remove(name)
    helper = cluster.machines[other]

    def left() -> tuple[bool, object]:
        helper.ssh(f"sudo consul force-leave {name}", check=False)
        listed = voters(cluster, other)
        return listed == sorted(set(cluster.nodes)), listed

    until(left, f"Consul without {name}", SECONDS)
    folder = cluster.folder / "machines" / f"{name}-newer"
    spec = cluster.spec(node, instance=instance)
    cluster.boot(node, seed=spec.seed, folder=folder)
    cluster.wait_ready([name])
    cluster.wait_formed(3, SECONDS)
    until(lambda: (len(voters(cluster, other)) == 3, voters(cluster, other)), "three voters", SECONDS)


def test_each_node_is_replaced_while_clients_write(clusters: Clusters) -> None:
    cluster = clusters.make()
    first = cluster.leader()
    assert first
    replicas = sorted(set(cluster.nodes) - {first})
    with watch(cluster, "replace") as witness:
        for name in (*replicas, first):
            other = next(n for n in replicas if n != name)
            if name == first:
                cluster.machines[other].ssh(f"{PATRONICTL} switchover pg-15-cluster --force", timeout=SECONDS)
                cluster.wait_formed(3, SECONDS)
            witness.note(f"{name} replaced")
            # The seed of before serves, and one that a cloud makes.
            replace_node(cluster, name, other, None if name == replicas[0] else f"i-{name}-newer")
        witness.wait_progress(SECONDS, 100)
    cluster.wait_formed(3, SECONDS)
    judgement = judge(witness.history(), rows(cluster, witness.run), synchronous=True)
    print("\n".join(judgement.summary()))
    assert judgement.violations == [], "\n".join(judgement.summary())
    assert judgement.leaderships[0].member == first
    assert len(judgement.leaderships) == 2, "\n".join(judgement.summary())
