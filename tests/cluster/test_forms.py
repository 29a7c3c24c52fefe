"""What three nodes of one image are, once they have found each other."""

from __future__ import annotations

import json

from foundry.lab.cluster import Cluster
from foundry.lab.plan import CA
from tests.pipeline.harness import until

OWN = "/etc/patroni/tls/node.pem"
SQL = "sudo -u postgres psql -Atc"


def test_one_leads_and_two_stream(cluster: Cluster) -> None:
    members = cluster.members()
    assert {m.name: m.host for m in members} == {f"pg-srv{n}": f"10.129.0.{20 + n}" for n in (1, 2, 3)}
    assert sorted(m.role for m in members) == ["leader", "replica", "replica"]
    leader = cluster.leader()
    assert leader is not None
    streams = cluster.machines[leader].ssh(
        f"{SQL} 'SELECT application_name FROM pg_stat_replication WHERE state = $$streaming$$ ORDER BY 1'"
    )
    assert streams.output.split() == sorted({"pg-srv1", "pg-srv2", "pg-srv3"} - {leader})


def test_every_member_has_checksums(cluster: Cluster) -> None:
    for machine in cluster.machines.values():
        assert machine.ssh(f"cd /; {SQL} 'SHOW data_checksums'").output == "on"


def test_all_see_the_same_cluster(cluster: Cluster) -> None:
    views = [[(m.name, m.role) for m in cluster.seen_by(name)] for name in cluster.machines]
    assert views[0] == views[1] == views[2]


def test_consul_has_three_servers_and_a_service(cluster: Cluster) -> None:
    machine = cluster.machines["pg-srv1"]
    peers = machine.ssh("sudo consul operator raft list-peers").output
    assert sorted(line.split()[0] for line in peers.splitlines()[1:]) == ["pg-srv1", "pg-srv2", "pg-srv3"]

    def look() -> tuple[bool, object]:
        text = machine.ssh("curl -s http://127.0.0.1:8500/v1/health/service/pg-15-cluster?passing").output
        found = {e["Service"]["Address"]: "master" in e["Service"]["Tags"] for e in json.loads(text)}
        leads = {n.address: n.name == cluster.leader() for n in cluster.nodes.values()}
        return found == leads, found

    # A replica is registered once it streams, and passes from its first health check on.
    until(look, "three healthy services, one of them the leader's", 60)


def test_members_are_of_one_authority_and_speak_https_only(cluster: Cluster) -> None:
    # Each makes its certificate itself, and its signature differs; key and name are what counts.
    who = f"openssl x509 -noout -pubkey -subject -in {CA}"
    assert len({machine.ssh(who).output for machine in cluster.machines.values()}) == 1
    code = "curl -sS -m 3 -o /dev/null -w '%{http_code}'"
    for name, machine in cluster.machines.items():
        subject = machine.ssh(f"openssl verify -CAfile {CA} {OWN} && openssl x509 -noout -subject -in {OWN}").output
        assert subject.splitlines() == [f"{OWN}: OK", f"subject=O = Patroni member, CN = {name}"]
        for other in cluster.nodes.values():
            url = f"//{other.address}:8008/health"
            assert machine.ssh(f"{code} --cacert {CA} https:{url}").output == "200"
            assert machine.ssh(f"{code} http:{url} 2>&1", check=False).output.endswith("000")
            unknown = machine.ssh(f"curl -sS -m 3 https:{url} 2>&1", check=False).output
            assert "SSL certificate problem" in unknown, "an authority that nobody else knows"


def test_a_local_user_s_consul_shows_names_and_no_keys(cluster: Cluster) -> None:
    for machine in cluster.machines.values():
        assert machine.ssh("sudo consul kv get -keys service/pg-15-cluster/").output.count("service/pg-15-cluster/") > 3
        assert machine.ssh("consul kv get -keys service/pg-15-cluster/").output == ""
        for command in ("kv get service/pg-15-cluster/config", "kv put service/pg-15-cluster/config {}"):
            refused = machine.ssh(f"consul {command} 2>&1", check=False)
            assert refused.returncode != 0
            assert "Unexpected response code: 403" in refused.output
