"""PostgreSQL is sized for the machine that it runs on (trap 7)."""

from __future__ import annotations

import json
from typing import Any

import pytest

# The tutorial's, for 4 GB, 2 CPUs, mixed, ssd, 100 connections, as SHOW prints them.
TUTORIAL = {
    "max_connections": "100",
    "shared_buffers": "1GB",
    "effective_cache_size": "3GB",
    "maintenance_work_mem": "256MB",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "default_statistics_target": "100",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "work_mem": "2621kB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
}


@pytest.fixture(scope="module")
def expected(host: Any, facts: dict[str, Any], node: dict[str, Any]) -> dict[str, str]:
    """What a machine of the size that this one was given must show."""
    if (node["memory_mib"], node["cpus"]) == (4096, 2):
        return TUTORIAL
    disk = facts["commands"]["root size"]["out"].split()[-1].rstrip("M")
    words = f"--json --memory {node['memory_mib']}MiB --cpus {node['cpus']} --disk {disk}MiB"
    answer = host.run(f"patroni-node tuning {words}")
    assert answer.rc == 0, answer.stderr
    return {name: str(value) for name, value in json.loads(answer.stdout).items()}


def test_postgresql_shows_the_values_of_this_machine(facts: dict[str, Any], expected: dict[str, str]) -> None:
    shown = facts["sql"]["shown"]
    assert {name: shown[name] for name in expected} == expected


def test_what_must_agree_is_in_the_clusters_configuration(patroni_yml: dict[str, Any]) -> None:
    cluster = patroni_yml["bootstrap"]["dcs"]["postgresql"]["parameters"]
    assert {"max_connections", "wal_level", "max_wal_senders"} <= set(cluster)
    assert not {"shared_buffers", "work_mem", "effective_cache_size"} & set(cluster)
    assert "shared_buffers" in patroni_yml["postgresql"]["parameters"]


def test_nothing_waits_for_a_restart(facts: dict[str, Any]) -> None:
    assert facts["sql"]["pending"] == 0
