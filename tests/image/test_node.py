"""What patroni-node rendered from node.yml, with the tutorial's mistakes put right (traps 1 to 6 and 17)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

KNOWN_PASSWORDS = {"patroni", "replicator", "postgres", "rewind_user", "password", "admin"}


@pytest.fixture(scope="module")
def consul_json(facts: dict[str, Any]) -> dict[str, Any]:
    return json.loads(facts["files"]["/etc/consul.d/patroni-node.json"]["content"])


def test_name_and_cluster_are_rendered(patroni_yml: dict[str, Any], node: dict[str, Any]) -> None:
    assert (patroni_yml["scope"], patroni_yml["name"]) == (node["cluster"], node["name"])


def test_address_is_rendered(patroni_yml: dict[str, Any], node: dict[str, Any]) -> None:
    assert patroni_yml["postgresql"]["connect_address"] == f"{node['address']}:5432"
    assert patroni_yml["restapi"]["connect_address"] == f"{node['address']}:8008"


def test_consul_has_name_and_address(consul_json: dict[str, Any], node: dict[str, Any]) -> None:
    assert consul_json["node_name"] == node["name"]
    assert consul_json["advertise_addr"] == node["address"]


def test_initdb_is_below_bootstrap(patroni_yml: dict[str, Any]) -> None:
    """Trap 1: anywhere else Patroni ignores it, and checksums and UTF8 are lost without a word."""
    assert "initdb" not in patroni_yml
    assert "data-checksums" in patroni_yml["bootstrap"]["initdb"]


def test_data_checksums_and_utf8(facts: dict[str, Any]) -> None:
    """Trap 1, in the running cluster."""
    assert facts["sql"]["settings"]["data_checksums"] == "on"
    assert set(facts["sql"]["encodings"].values()) == {"UTF8"}


def test_credentials_are_where_patroni_reads_them(patroni_yml: dict[str, Any]) -> None:
    """Trap 2."""
    assert set(patroni_yml["postgresql"]["authentication"]) >= {"superuser", "replication", "rewind"}
    assert patroni_yml["restapi"]["authentication"]["password"]
    assert not {"superuser", "replication", "pg_rewind"} & set(patroni_yml["postgresql"])
    assert "auth" not in patroni_yml["restapi"]


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def test_no_removed_parameter(patroni_yml: dict[str, Any], facts: dict[str, Any]) -> None:
    """Trap 3."""
    assert "wal_keep_segments" not in set(_keys(patroni_yml))
    assert facts["sql"]["settings"]["wal_level"] == "replica"
    assert facts["sql"]["settings"]["wal_keep_size"] == "128"


def test_archiving_is_off(facts: dict[str, Any]) -> None:
    """Trap 4: without a tested command WAL would pile up until the disk is full."""
    settings = facts["sql"]["settings"]
    assert (settings["archive_mode"], settings["archive_timeout"]) == ("off", "0")
    assert settings["archive_command"] in ("", "(disabled)")


def test_access_rules(facts: dict[str, Any]) -> None:
    """Trap 5: peer locally, scram over the network, nobody trusted."""
    rules = facts["sql"]["hba"]
    assert [r for r in rules if r["error"]] == []
    assert {r["method"] for r in rules} <= {"peer", "scram-sha-256", "cert"}
    assert {r["method"] for r in rules if r["type"] == "local" and "all" in r["database"]} == {"peer"}
    remote = [r for r in rules if r["type"] != "local" and r["address"] not in ("127.0.0.1", "::1")]
    assert {r["type"] for r in remote} == {"hostssl"}


def test_passwords_are_stored_as_scram(facts: dict[str, Any]) -> None:
    """Trap 5."""
    stored = facts["sql"]["passwords"]
    assert {v for v in stored.values() if v} == {"SCRAM-SHA-256"}
    assert facts["sql"]["settings"]["password_encryption"] == "scram-sha-256"


def test_no_known_password(patroni_yml: dict[str, Any], facts: dict[str, Any]) -> None:
    """Trap 6."""
    given = [v["password"] for v in patroni_yml["postgresql"]["authentication"].values()]
    given.append(patroni_yml["restapi"]["authentication"]["password"])
    assert not KNOWN_PASSWORDS & set(given)
    assert len(set(given)) == len(given)
    assert facts["weak"] == []


def test_secrets_are_not_readable_by_everybody(facts: dict[str, Any]) -> None:
    """Trap 6: neither files that all may read, nor the journal, nor a command line holds one."""
    assert facts["secrets"] >= 14
    assert facts["exposed"] == []


# Patroni's and Consul's own copies, and cloud-init's of what it was given; none of them is for everybody to read.
HOLDERS = (
    r"/etc/patroni/(node|patroni)\.yml",
    r"/etc/patroni/tls/node\.key",
    r"/etc/consul\.d/patroni-node(\.json|-key\.pem|-token)",
    r"/var/lib/consul/serf/(local|remote)\.keyring",
    # The agent keeps the token that a service was registered with, and its servers all of them.
    r"/var/lib/consul/(checks|services)/[0-9a-f]+",
    r"/var/lib/consul/raft/(raft\.db|snapshots/[^/]+/state\.bin)",
    r"/var/lib/postgresql/15/\.pgpass",
    r"/var/lib/cloud/(seed/nocloud/user-data|instances/[^/]+/(user-data|cloud-config|obj)\.[a-z.]+)",
)


def test_secrets_are_nowhere_but_where_they_must_be(facts: dict[str, Any]) -> None:
    """Trap 6: in all files of the running node that somebody wrote, whoever may read them."""
    assert "/etc/patroni/node.yml" in facts["holders"]
    assert [path for path in facts["holders"] if not re.fullmatch("|".join(HOLDERS), path)] == []


@pytest.mark.parametrize(
    ("path", "mode", "group"),
    [
        ("/etc/patroni/patroni.yml", "0640", "postgres"),
        ("/etc/consul.d/patroni-node.json", "0640", "consul"),
        ("/etc/patroni/node.yml", "0600", "root"),
        ("/etc/patroni/tls/node.key", "0640", "postgres"),
        ("/etc/consul.d/patroni-node-key.pem", "0640", "consul"),
        ("/etc/consul.d/patroni-node-token", "0600", "root"),
    ],
)
def test_modes_of_files_with_secrets(facts: dict[str, Any], path: str, mode: str, group: str) -> None:
    """Trap 6."""
    found = facts["files"][path]
    assert (found["mode"], found["owner"], found["group"]) == (mode, "root", group)


def test_patroni_asks_the_local_agent_by_address(patroni_yml: dict[str, Any]) -> None:
    """Trap 17: localhost may be ::1, where nobody listens."""
    assert patroni_yml["consul"]["host"].partition(":")[0] == "127.0.0.1"


def test_consuls_api_is_only_on_loopback(facts: dict[str, Any], consul_json: dict[str, Any]) -> None:
    """Trap 17: whoever reaches the agent can rewrite the cluster's configuration."""
    local = [line.split()[3] for line in facts["commands"]["listening"]["out"].splitlines()]
    assert {a for a in local if a.endswith((":8500", ":8600"))} <= {"127.0.0.1:8500", "127.0.0.1:8600"}
    assert "127.0.0.1:8500" in local
    assert consul_json["client_addr"] == "127.0.0.1"


def test_gossip_is_encrypted(facts: dict[str, Any], consul_json: dict[str, Any]) -> None:
    """Trap 17."""
    assert len(consul_json["encrypt"]) >= 24
    stats = json.loads(facts["consul agent"]["body"])["Stats"]
    assert stats["serf_lan"]["encrypted"] == "true"


def test_patroni_starts_after_the_agent(facts: dict[str, Any]) -> None:
    """Trap 17."""
    assert {"consul.service", "patroni-node.service"} <= set(facts["units"]["patroni.service"]["After"].split())
