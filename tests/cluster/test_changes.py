"""What a cluster lives through besides faults: all of it goes down at once, and its store is another one."""

from __future__ import annotations

from foundry.lab.cluster import Cluster
from foundry.lab.judge import judge
from foundry.lab.witness import rows, watch
from tests.cluster.conftest import Clusters

SECONDS = 180


def test_all_three_go_down_and_come_back_by_themselves(cluster: Cluster) -> None:
    with watch(cluster, "reboot") as witness:
        witness.wait_progress(SECONDS, 100)
        for machine in cluster.machines.values():
            machine.cut_power()
        for node in list(cluster.nodes.values()):
            cluster.boot(node)
        cluster.wait_ready()
        cluster.wait_formed(3, SECONDS)
        witness.wait_progress(SECONDS, 100)
    judgement = judge(witness.history(), rows(cluster, witness.run), synchronous=False)
    assert judgement.violations == [], "\n".join(judgement.summary())
    timelines = [led.timeline for led in judgement.leaderships]
    assert timelines == sorted(set(timelines)), "\n".join(judgement.summary())


def test_a_cluster_on_etcd_forms_and_switches_over(clusters: Clusters) -> None:
    cluster = clusters.make(dcs="etcd3")
    before = cluster.leader()
    command = "patronictl -c /etc/patroni/patroni.yml switchover pg-15-cluster --force"
    answer = cluster.machines["pg-srv1"].ssh(command, timeout=SECONDS).output
    assert "Successfully switched over to" in answer
    after = cluster.wait_formed(3, SECONDS)
    assert before != next(m.name for m in after if m.role == "leader")
    assert {m.timeline for m in after} == {2}
    assert cluster.machines["pg-srv1"].ssh("systemctl is-active consul", check=False).output == "inactive"
