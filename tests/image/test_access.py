"""Who gets in: with the cluster's own certificate, token or password, and nobody without."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def consul_json(facts: dict[str, Any]) -> dict[str, Any]:
    return json.loads(facts["files"]["/etc/consul.d/patroni-node.json"]["content"])


def answer(access: dict[str, Any], question: str) -> tuple[str, str]:
    """What the agent has answered to a local user without a token: its code, and its text."""
    text, _, code = access["nobody"][question].rpartition("\n")
    return code, text


def test_it_is_a_cluster_of_today(facts: dict[str, Any]) -> None:
    assert json.loads(facts["files"]["/var/lib/patroni-node/security.json"]["content"]) == {"version": 2}


def test_certificates_are_of_the_cluster_s_own_authorities(facts: dict[str, Any]) -> None:
    """Consul's is not the other one: whoever has a certificate of it is a server to Consul."""
    commands = facts["commands"]
    assert commands["node's certificate"]["out"] == "/etc/patroni/tls/node.pem: OK"
    assert commands["consul's certificate"]["out"] == "patroni-node-cert.pem: OK"
    assert "OK" not in commands["consul's by the other"]["out"]
    for path in ("/etc/patroni/tls/node.pem", "/etc/patroni/tls/ca.pem", "/etc/consul.d/patroni-node-ca.pem"):
        assert facts["files"][path]["mode"] == "0644"


def test_patroni_shows_certificate_and_token(patroni_yml: dict[str, Any], consul_json: dict[str, Any]) -> None:
    restapi = patroni_yml["restapi"]
    folder = "/etc/patroni/tls"
    assert [restapi[name] for name in ("certfile", "keyfile", "cafile")] == [
        f"{folder}/{name}" for name in ("node.pem", "node.key", "ca.pem")
    ]
    assert restapi["verify_client"] in ("optional", "required")
    assert {v["sslmode"] for v in patroni_yml["postgresql"]["authentication"].values()} <= {"verify-ca", "verify-full"}
    assert patroni_yml["consul"]["token"] == consul_json["acl"]["tokens"]["agent"]
    assert patroni_yml["consul"]["token"] != consul_json["acl"]["tokens"]["master"]


def test_consul_asks_for_certificates_and_tokens(consul_json: dict[str, Any]) -> None:
    for option in ("verify_incoming_rpc", "verify_outgoing", "verify_server_hostname"):
        assert consul_json[option] is True, option
    for option, name in (("ca_file", "ca"), ("cert_file", "cert"), ("key_file", "key")):
        assert consul_json[option] == f"/etc/consul.d/patroni-node-{name}.pem"
    rules = consul_json["acl"]
    assert (rules["enabled"], rules["default_policy"]) == (True, "deny")
    assert rules["down_policy"] in ("extend-cache", "deny")


@pytest.mark.parametrize("what", ["a key", "writes", "new session", "agent", "tokens", "raft", "snapshot"])
def test_consul_refuses_a_local_user(access: dict[str, Any], what: str) -> None:
    code, text = answer(access, what)
    assert code == "403", text
    assert "Permission denied" in text


@pytest.mark.parametrize("what", ["all keys", "names of keys", "sessions"])
def test_consul_shows_a_local_user_nothing(access: dict[str, Any], what: str) -> None:
    """What lists things leaves out what may not be seen."""
    assert answer(access, what) in [("404", ""), ("200", "[]"), ("403", "Permission denied")]


def test_consul_tells_everybody_who_leads(access: dict[str, Any], node: dict[str, Any]) -> None:
    """Or its DNS would answer nobody."""
    code, text = answer(access, "names")
    assert code == "200"
    assert [entry["ServiceAddress"] for entry in json.loads(text)] == [node["address"]]


def test_consul_s_port_for_servers_is_for_members(access: dict[str, Any]) -> None:
    """Without their certificate: neither requests nor Raft, in the clear or by TLS."""
    found = access["rpc"]
    assert found["another account"] == "refused", "root, too"
    assert re.fullmatch("[0-9a-f]+", found["with consul's"]), "its answer to a ping"
    assert (found["in the clear"], found["raft in the clear"]) == ("", "")
    for stranger in ("without certificate", "with patroni's"):
        assert "bad certificate" in found[stranger] or found[stranger] == "", found


def test_no_port_for_other_datacenters(
    facts: dict[str, Any], access: dict[str, Any], consul_json: dict[str, Any]
) -> None:
    assert consul_json["ports"]["serf_wan"] == -1
    assert access["other datacenters"] == "refused"
    for protocol in ("listening", "listening by udp"):
        ports = [line.split()[3].rpartition(":")[2] for line in facts["commands"][protocol]["out"].splitlines()]
        assert "8301" in ports and "8302" not in ports


def test_the_rest_api_speaks_no_plain_http(access: dict[str, Any]) -> None:
    assert access["rest"]["on loopback"]["status"] == 200
    assert (access["rest"]["plain"]["status"], access["rest"]["plain change"]["status"]) == (0, 0)


def test_the_rest_api_changes_nothing_without_certificate_and_password(access: dict[str, Any]) -> None:
    found = {name: access["rest"][name]["status"] for name in ("without certificate", "without password", "with both")}
    assert found == {"without certificate": 403, "without password": 401, "with both": 200}
    assert "nothing" not in yaml.safe_load(access["rest"]["with both"]["body"])


def test_postgresql_takes_encrypted_connections_only(facts: dict[str, Any], access: dict[str, Any]) -> None:
    assert facts["sql"]["settings"]["ssl"] == "on"
    assert access["encrypted"] == {"rc": 0, "out": "t", "err": ""}
    refused = access["in the clear"]
    assert refused["rc"] != 0
    assert "no pg_hba.conf entry" in refused["err"] and "no encryption" in refused["err"]
