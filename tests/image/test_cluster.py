"""PostgreSQL works: this node leads, takes writes, is in Consul, and answers the tutorial's commands word for word."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml


def test_leads(facts: dict[str, Any]) -> None:
    assert facts["leader"]["status"] == 200, facts["leader"]
    assert facts["sql"]["recovery"] is False


def test_is_postgresql_15(facts: dict[str, Any]) -> None:
    assert facts["sql"]["version"] == 15


def test_compiles_queries_unless_that_was_left_out(facts: dict[str, Any], node: dict[str, Any]) -> None:
    manifest = node["manifest"]
    left_out = manifest["configuration"]["images"][manifest["name"]].get("exclude", [])
    assert facts["sql"]["jit"] is ("jit" not in left_out)


def test_takes_a_write(facts: dict[str, Any]) -> None:
    assert facts["commands"]["boot"]["out"] in facts["sql"]["written"]


def test_consul_has_a_leader(facts: dict[str, Any], node: dict[str, Any]) -> None:
    assert json.loads(facts["consul leader"]["body"]) == f"{node['address']}:8300"


def test_consul_lists_the_service(facts: dict[str, Any], node: dict[str, Any]) -> None:
    (entry,) = json.loads(facts["consul service"]["body"])
    assert entry["ServiceName"] == node["cluster"]
    assert (entry["ServiceAddress"], entry["ServicePort"]) == (node["address"], 5432)
    assert {"master", "primary"} & set(entry["ServiceTags"])


def test_consul_finds_the_service_healthy(facts: dict[str, Any]) -> None:
    assert len(json.loads(facts["consul health"]["body"])) == 1


def test_consul_holds_what_patroni_wrote(facts: dict[str, Any], node: dict[str, Any]) -> None:
    keys = json.loads(facts["consul keys"]["body"])
    assert {f"service/{node['cluster']}/{name}" for name in ("config", "initialize", "leader")} <= set(keys)


def test_root_s_consul_shows_the_token_by_itself(host: Any, node: dict[str, Any]) -> None:
    """And nobody else's does, who has none."""
    result = host.run("sudo consul operator raft list-peers")
    assert result.rc == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [node["name"]]
    for command in ("operator raft list-peers", f"kv get service/{node['cluster']}/config"):
        refused = host.run(f"consul {command}")
        assert refused.rc != 0
        assert "Unexpected response code: 403" in refused.stderr


def test_tutorial_list(host: Any, node: dict[str, Any]) -> None:
    """As the user who logged in, without sudo, as the tutorial does it."""
    result = host.run("patronictl -c /etc/patroni/patroni.yml list")
    assert result.rc == 0, result.stderr
    (row,) = [line for line in result.stdout.splitlines() if node["name"] in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == [node["name"], node["address"], "Leader", "running"]
    assert node["cluster"] in result.stdout


def test_tutorial_show_config(host: Any) -> None:
    result = host.run("patronictl -c /etc/patroni/patroni.yml show-config")
    assert result.rc == 0, result.stderr
    shown = yaml.safe_load(result.stdout)
    assert shown["postgresql"]["use_pg_rewind"] is True
    assert shown["failsafe_mode"] is True


@pytest.mark.parametrize("command", ["systemctl status patroni", "sudo systemctl status patroni"])
def test_tutorial_status(host: Any, command: str) -> None:
    result = host.run(command)
    assert result.rc == 0, result.stderr
    assert "active (running)" in result.stdout
