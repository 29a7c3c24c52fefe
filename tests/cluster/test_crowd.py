"""Somebody in `networks` without key and password takes neither Patroni's memory nor its files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from foundry import run
from foundry.lab.cluster import Cluster
from foundry.lab.plan import CLIENT, NETWORK

CROWD = Path(__file__).with_name("crowd.py")
MEMBER = "pg-srv1"
MANY = 600
# debian/venv-patches/rest-api-bodies.patch: a hundred wait, beside those who are served.
MOST_WAITING = 120


def words(cluster: Cluster, name: str, **options: Any) -> list[str | Path]:
    """A command that does one thing of crowd.py on another machine of the network."""
    asked = json.dumps({name: {"host": cluster.nodes[MEMBER].address, **options}})
    return [*cluster.network.join(f"{CLIENT}/{NETWORK.prefixlen}"), sys.executable, CROWD, asked]


def pour(cluster: Cluster, **options: Any) -> dict[str, Any]:
    found = run.run(words(cluster, "pour", **options), name="crowd", on_line=None)
    return dict(json.loads(found.output)["pour"])


def patroni(cluster: Cluster, command: str) -> int:
    """A number about the process; its number is $p."""
    command = f"p=$(systemctl show -P MainPID patroni); {command}"
    return int(cluster.machines[MEMBER].ssh(command).output)


@pytest.mark.parametrize(("method", "path"), [("POST", "/mpp"), ("POST", "/citus"), ("PATCH", "/config")])
def test_a_body_of_300_megabytes_is_not_read(cluster: Cluster, method: str, path: str) -> None:
    """It was, of whoever sent one to /mpp: Patroni grew from 41 to 627 MB."""
    most = "sudo awk '/VmHWM/ {print $2}' /proc/$p/status"
    before = patroni(cluster, most)
    found = pour(cluster, method=method, path=path, size=300 << 20)
    # What the kernels hold between the two of them is taken, unread.
    assert found["sent"] < 30 << 20
    assert found["answer"].endswith("403 Forbidden") or found["answer"] in ("", "ConnectionResetError")
    assert patroni(cluster, most) - before < 20_000


def test_mpp_takes_no_event_without_a_certificate(cluster: Cluster) -> None:
    found = pour(cluster, method="POST", path="/mpp", size=0)
    assert found["answer"].endswith("403 Forbidden")


def test_who_says_nothing_takes_no_file_of_patronis(cluster: Cluster) -> None:
    """Each took one, and there was no end of it: without files Patroni cannot tell whether PostgreSQL runs."""
    with run.Process(words(cluster, "stand", count=MANY, most=MOST_WAITING), name="crowd", on_line=None) as standing:
        said = next(line for line in standing.heard() if line.startswith("{"))
        files = patroni(cluster, "sudo ls /proc/$p/fd | wc -l")
        standing.stop(grace=0)
    found = json.loads(said)["stand"]
    assert found["made"] > MANY / 2
    assert found["open"] <= MOST_WAITING
    assert files < 2 * MOST_WAITING
