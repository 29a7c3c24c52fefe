"""`tls:` on real nodes: encrypted between all of them, closed to who has no certificate, patronictl as ever."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from foundry.machine import Machine
from tests.pipeline.harness import until
from tests.pipeline.lab import CA, QUICK, Lab, code, keeps_its_keys, members, servers_hear, whole_cluster

PATRONICTL = "patronictl -c /etc/patroni/patroni.yml"
CONSUL = "/etc/consul.d/patroni-node"
PASSWORD = "fTq7nXw2KpL9rVb4"


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._openssl("req", "-x509", "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem")

    def _openssl(self, verb: str, *words: str) -> None:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        subprocess.run(["openssl", verb, *curve, *words], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name: str, address: str) -> dict[str, str]:
        """node.yml's tls: for a node."""
        of = [f"/CN={name}", "-addext", f"subjectAltName=IP:{address}", "-CA", "ca.pem", "-CAkey", "ca.key"]
        self._openssl("req", "-x509", "-subj", *of, "-keyout", f"{name}.key", "-out", f"{name}.pem")
        files = {"ca": "ca.pem", "certificate": f"{name}.pem", "key": f"{name}.key"}
        return {option: (self.folder / file).read_text() for option, file in files.items()}


@pytest.fixture
def nodes(lab: Lab) -> list[Machine]:
    folder = lab.folder / "authority"
    folder.mkdir(parents=True)
    authority = Authority(folder)
    shared = {
        **QUICK,
        "networks": ["10.129.0.0/24"],
        "dcs": {"consul": {"join": ["10.129.0.21", "10.129.0.22"]}},
        "secrets": {"key": lab.key, "superuser": PASSWORD},
    }
    found = []
    for number in (1, 2):
        own = authority.issue(f"pg-srv{number}", f"10.129.0.{20 + number}")
        found.append(lab.boot(lab.spec(number, {**shared, "tls": own}), wait=False))
    for node in found:
        node.wait_ready(180)
    whole_cluster(found[0], 2)
    return found


def consul_is_closed(nodes: list[Machine]) -> None:
    """By an authority of its own, since to Consul whoever has a certificate of the given one would be a server."""
    assert not servers_hear(nodes[0], "10.129.0.22")
    for node in nodes:
        keeps_its_keys(node)
        trusted = node.ssh(f"openssl crl2pkcs7 -nocrl -certfile {CONSUL}-ca.pem | openssl pkcs7 -print_certs -noout")
        assert "subject=O = Patroni authority, CN = pg-15-cluster" in trusted.output
        assert "subject=CN = Test authority" in node.ssh(f"openssl x509 -noout -subject -in {CA}").output
        assert "subject=CN = Test authority" not in trusted.output
        assert node.ssh(f"openssl verify -CAfile {CONSUL}-ca.pem {CONSUL}-cert.pem").output.endswith(": OK")
        assert node.ssh(f"openssl verify -CAfile {CA} {CONSUL}-cert.pem 2>&1", check=False).returncode != 0


def test_a_cluster_with_certificates(nodes: list[Machine]) -> None:
    first = nodes[0]
    url = "https://10.129.0.22:8008"
    assert code(first, f"--cacert {CA} {url}/health") == "200"
    assert code(first, "http://10.129.0.22:8008/health") == "000", "the REST API must not speak plain http"
    words = f"--cacert {CA} --user patroni:wrong --request POST {url}/restart"
    assert code(first, words) == "403", "an unsafe request needs a client certificate"

    consul_is_closed(nodes)

    psql = f"PGPASSWORD={PASSWORD} psql -Atc 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'"
    to = "'host=10.129.0.22 user=postgres dbname=postgres"
    assert first.ssh(f"{psql} {to} sslmode=verify-full sslrootcert={CA}'").output == "t"
    refused = first.ssh(f"{psql} {to} sslmode=disable'", check=False).output
    assert "no pg_hba.conf entry" in refused and "no encryption" in refused
    streaming = "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_replication USING (pid)"
    leads = {m["Member"]: m["Role"] for m in members(first)}
    leader = next(n for n in nodes if leads[n.spec.seed.hostname] == "Leader")
    assert leader.ssh(f'sudo -u postgres psql -Atc "{streaming}"').output == "t"

    def passing() -> tuple[bool, object]:
        answer = first.ssh("curl -s http://127.0.0.1:8500/v1/health/service/pg-15-cluster?passing").output
        found = sorted(service["Node"]["Node"] for service in json.loads(answer))
        return found == ["pg-srv1", "pg-srv2"], answer

    until(passing, "Consul's checks of both REST APIs over https", 30)

    # What changes something goes with the node's own certificate, and nobody has to say so.
    replica = next(name for name, role in leads.items() if role == "Replica")
    first.ssh(f"sudo {PATRONICTL} restart pg-15-cluster {replica} --force", timeout=120)
    whole_cluster(first, 2)
    first.ssh(f"sudo {PATRONICTL} switchover pg-15-cluster --candidate {replica} --force", timeout=120)
    until(lambda: (replica in _leading(first), members(first)), f"{replica} leads", 60)
    whole_cluster(first, 2)

    first.ssh("sudo patroni-node restart", timeout=180)
    for node in nodes:
        until(lambda node=node: _well(node), "status finds no problem over https", 60)


def _well(node: Machine) -> tuple[bool, object]:
    answer = node.ssh("sudo patroni-node status", check=False)
    return answer.returncode == 0, answer.output


def _leading(node: Machine) -> list[str]:
    return [m["Member"] for m in members(node) if m["Role"] == "Leader" and m["State"] == "running"]
