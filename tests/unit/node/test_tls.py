"""Certificates of node.yml: checked before anything is written, installed with the right modes, gone when not wanted.

data/ holds a throw-away authority's certificate and one of a node at 10.129.0.21, made with openssl for a century.
"""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from typing import Any

import pytest
import yaml
from conftest import DATA, MINIMAL, Node

from patroni_node.authority import Member
from patroni_node.configure import configure
from patroni_node.errors import NodeError
from patroni_node.tls import Tls


def tls(node: Node, **files: str) -> str:
    """A `tls:` that names copies of files of data/, given by path."""
    chosen = {"ca": "ca.pem", "certificate": "node.pem", "key": "node.key", **files}
    lines = ["tls:"]
    for name, source in chosen.items():
        target = node.paths.root / "etc/pki" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((DATA / source).read_bytes())
        target.chmod(0o600)
        lines.append(f"  {name}: {{file: /etc/pki/{source}}}")
    return "\n".join(lines) + "\n"


def rendered(node: Node, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    node.write(text)
    configure(node.paths, node.machine)
    return yaml.safe_load(node.paths.patroni_yml.read_text()), json.loads(node.paths.consul_json.read_text())


def test_postgresql_and_the_rest_api_speak_tls(node: Node) -> None:
    patroni, consul = rendered(node, MINIMAL + tls(node))
    rules = [rule.split() for rule in patroni["postgresql"]["pg_hba"]]
    assert {rule[0] for rule in rules if rule[3] not in ("127.0.0.1/32", "::1/128", "peer", "scram-sha-256")} == {
        "hostssl"
    }
    parameters = patroni["postgresql"]["parameters"]
    assert (parameters["ssl"], parameters["ssl_key_file"]) == ("on", "/etc/patroni/tls/node.key")
    assert patroni["restapi"]["verify_client"] == "optional"
    assert patroni["restapi"]["certfile"] == patroni["ctl"]["certfile"] == "/etc/patroni/tls/node.pem"
    assert patroni["postgresql"]["authentication"]["replication"]["sslmode"] == "verify-ca"
    assert consul["ca_file"] == "/etc/consul.d/patroni-node-ca.pem"
    assert node.paths.consul_checks_ca.read_bytes() == (DATA / "ca.pem").read_bytes()


def test_files_are_the_given_ones_and_the_key_is_nobody_elses(node: Node) -> None:
    rendered(node, MINIMAL + tls(node))
    assert (node.paths.tls / "node.key").read_bytes() == (DATA / "node.key").read_bytes()
    assert stat.S_IMODE((node.paths.tls / "node.key").stat().st_mode) == 0o640
    assert stat.S_IMODE((node.paths.tls / "ca.pem").stat().st_mode) == 0o644


def test_without_tls_its_files_go_away(node: Node) -> None:
    rendered(node, MINIMAL + tls(node))
    patroni, consul = rendered(node, MINIMAL + "tls: off\n")
    assert list(node.paths.tls.iterdir()) == []
    assert not node.paths.consul_ca.exists()
    assert "ctl" not in patroni
    assert "ca_file" not in consul
    assert "ssl" not in patroni["postgresql"]["parameters"]


def test_as_text_in_the_file_itself(node: Node) -> None:
    block = {
        name: (DATA / source).read_text()
        for name, source in (("ca", "ca.pem"), ("certificate", "node.pem"), ("key", "node.key"))
    }
    rendered(node, MINIMAL + yaml.safe_dump({"tls": block}))
    assert (node.paths.tls / "node.pem").read_text() == block["certificate"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"certificate": "other.pem"}, r"tls.key: does not belong to the certificate"),
        ({"ca": "ca-other.pem"}, r"tls.certificate: was not issued by the authority in ca"),
        ({"ca": "node.key"}, r"tls.ca: is not a certificate in PEM"),
        ({"key": "node.pem"}, r"tls: certificate and key are not both PEM"),
        ({"key": "encrypted.key"}, r"tls.key: is encrypted"),
    ],
)
def test_what_does_not_work_together_is_refused(node: Node, files: dict[str, str], said: str) -> None:
    rendered(node, MINIMAL + "tls: off\n")
    before = node.paths.patroni_yml.read_bytes()
    node.write(MINIMAL + tls(node, **files))
    with pytest.raises(NodeError, match=said) as caught:
        configure(node.paths, node.machine)
    assert caught.value.problems[0].line is not None
    assert node.paths.patroni_yml.read_bytes() == before
    assert not node.paths.tls.exists()


def test_a_certificate_for_another_address_is_refused(node: Node) -> None:
    node.ip.links[1]["addr_info"] = [{"local": "10.129.0.77"}]
    node.write(MINIMAL + tls(node))
    with pytest.raises(NodeError, match=r"is not valid for 10\.129\.0\.77, this node's address: it needs .* IP:10"):
        configure(node.paths, node.machine)


def test_a_key_that_everybody_may_read_is_refused(node: Node) -> None:
    node.write(MINIMAL + tls(node))
    (node.paths.root / "etc/pki/node.key").chmod(0o644)
    with pytest.raises(NodeError, match=r"tls\.key: /etc/pki/node.key may be read by everybody: chmod 0600"):
        configure(node.paths, node.machine)


def test_consuls_agents_speak_tls_to_each_other(node: Node) -> None:
    text = MINIMAL + "dcs:\n  consul:\n" + "".join(f"    {line}\n" for line in tls(node).splitlines())
    patroni, consul = rendered(node, text)
    assert (consul["verify_incoming_rpc"], consul["verify_outgoing"]) == (True, True)
    assert consul["key_file"] == "/etc/consul.d/patroni-node-key.pem"
    assert stat.S_IMODE(node.paths.consul_key.stat().st_mode) == 0o640
    assert "scheme" not in patroni["consul"], "the local agent's API is on loopback, in the clear"
    assert "enable_agent_tls_for_checks" not in consul
    assert node.paths.consul_checks_ca.read_bytes() == (node.paths.tls / "ca.pem").read_bytes()


def test_an_authority_of_others_is_none_of_consuls(node: Node) -> None:
    """Whoever has a certificate of it would be a server of Consul, which believes all of its one list."""
    node.write(MINIMAL + tls(node, ca="ca.pem"))
    own = "-----BEGIN CERTIFICATE-----\nown\n-----END CERTIFICATE-----\n"
    machine = replace(node.machine, certify=lambda *asked: Tls(own, "own certificate", "own key"))
    configure(node.paths, machine)
    assert node.paths.consul_ca.read_text() == own
    assert node.paths.consul_checks_ca.read_text() == (DATA / "ca.pem").read_text()
    assert node.paths.consul_certificate.read_text() == "own certificate"
    assert (node.paths.tls / "node.pem").read_text() == (DATA / "node.pem").read_text()
    node.of_before()
    node.paths.security.unlink()
    configure(node.paths, machine)
    assert node.paths.consul_ca.read_text() == (DATA / "ca.pem").read_text().strip() + "\n"
    assert not node.paths.consul_certificate.exists()


def test_code_in_the_database_has_no_certificate_of_consuls(node: Node) -> None:
    """Consul's Raft takes any of its authority and asks for no token: who has one writes Consul's rules."""
    asked: list[Member] = []

    def issue(key: bytes, member: Member, *more: object) -> Tls:
        asked.append(member)
        return Tls(f"authority {key.hex()}", f"certificate {len(asked)}", f"key {len(asked)}")

    node.write(MINIMAL)
    configure(node.paths, replace(node.machine, certify=issue))
    database, consul = asked
    assert "server.dc1.consul" in consul.dns
    assert "server.dc1.consul" not in database.dns
    assert [(node.paths.tls / "node.key").read_text(), node.paths.consul_key.read_text()] == ["key 1", "key 2"]
    authority = (node.paths.tls / "ca.pem").read_text()
    assert node.paths.consul_checks_ca.read_text() == authority
    assert authority not in node.paths.consul_ca.read_text()


def test_patroni_speaks_tls_to_a_store_elsewhere(node: Node) -> None:
    inner = "".join(f"    {line}\n" for line in tls(node).splitlines())
    networks = "networks: [10.129.0.0/24]\n"
    node.write(MINIMAL + networks + "dcs:\n  consul:\n    mode: external\n    host: consul.example.org\n" + inner)
    configure(node.paths, node.machine)
    consul = yaml.safe_load(node.paths.patroni_yml.read_text())["consul"]
    assert (consul["scheme"], consul["host"]) == ("https", "consul.example.org:8500")
    assert (consul["cacert"], consul["cert"]) == ("/etc/patroni/tls/dcs-ca.pem", "/etc/patroni/tls/dcs.pem")
    node.write(MINIMAL + networks + "dcs:\n  etcd3:\n    hosts: ['10.0.0.5:2379']\n" + inner)
    configure(node.paths, node.machine)
    etcd = yaml.safe_load(node.paths.patroni_yml.read_text())["etcd3"]
    assert (etcd["protocol"], etcd["hosts"], etcd["key"]) == ("https", ["10.0.0.5:2379"], "/etc/patroni/tls/dcs.key")
