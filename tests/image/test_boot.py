"""The machine came up whole, as the node that its seed says."""

from __future__ import annotations

from typing import Any

import pytest

# Lines of /var/log/cloud-init.log that are known to be harmless: (a part of the line, why).
KNOWN_WARNINGS: tuple[tuple[str, str], ...] = ()


def test_no_unit_failed(facts: dict[str, Any]) -> None:
    assert facts["commands"]["failed units"]["out"] == ""


def test_system_is_running(facts: dict[str, Any]) -> None:
    assert facts["commands"]["system"]["out"] == "running"


def test_no_ordering_cycle_and_no_job_left(facts: dict[str, Any]) -> None:
    assert facts["commands"]["order"]["out"] == ""


def test_cloud_init_is_done_without_errors(facts: dict[str, Any]) -> None:
    assert "status: done" in facts["commands"]["cloud-init"]["out"]
    result = facts["cloud-init"]["result"]["v1"]
    assert result["errors"] == []
    assert "NoCloud" in result["datasource"]
    stages = facts["cloud-init"]["status"]["v1"]
    assert [s for s in stages.values() if isinstance(s, dict) and s.get("errors")] == []


def test_cloud_init_logged_no_unknown_warning(facts: dict[str, Any]) -> None:
    unknown = [line for line in facts["warnings"] if not any(part in line for part, _ in KNOWN_WARNINGS)]
    assert unknown == []


def test_host_name_and_address_are_the_seeds(facts: dict[str, Any], node: dict[str, Any]) -> None:
    assert facts["commands"]["hostname"]["out"] == node["hostname"]
    assert f" {node['address']}/" in facts["commands"]["addresses"]["out"]


def test_the_root_takes_the_whole_disk(facts: dict[str, Any]) -> None:
    """Which is larger than the image's; what is missing are the boot partitions and ext4's own tables."""
    root = int(facts["commands"]["root size"]["out"].split()[-1].rstrip("M")) << 20
    assert root > 0.95 * int(facts["commands"]["disk size"]["out"])


def test_own_host_name_resolves_without_dns(facts: dict[str, Any]) -> None:
    """Otherwise every sudo waits for a DNS server that may not be there."""
    assert facts["commands"]["own name"]["rc"] == 0


def test_console_goes_to_the_serial_port(facts: dict[str, Any]) -> None:
    assert "console=ttyS0" in facts["files"]["/proc/cmdline"]["content"]


def test_identity_was_made_at_this_boot(facts: dict[str, Any]) -> None:
    """Trap 18: the image has none of these, so each clone makes its own."""
    machine_id = facts["files"]["/etc/machine-id"]["content"].strip()
    assert len(machine_id) == 32
    assert set(machine_id) <= set("0123456789abcdef")
    assert "ssh-ed25519" in facts["commands"]["host keys"]["out"]


@pytest.mark.parametrize("unit", ["patroni-node.service", "consul.service", "patroni.service"])
def test_service_is_active_and_enabled(facts: dict[str, Any], unit: str) -> None:
    found = facts["units"][unit]
    assert (found["LoadState"], found["ActiveState"]) == ("loaded", "active")
    # The other two want patroni-node.service, which needs no link of its own.
    assert found["UnitFileState"] == ("static" if unit == "patroni-node.service" else "enabled")
    assert found["NRestarts"] == "0"


def test_consul_s_rules_are_written(facts: dict[str, Any]) -> None:
    found = facts["units"]["patroni-node-acl.service"]
    assert (found["LoadState"], found["ActiveState"], found["Result"]) == ("loaded", "inactive", "success")
    assert found["ExecMainStatus"] == "0"


def test_certificates_are_looked_after(facts: dict[str, Any]) -> None:
    """By a timer; the service works in its sandbox, and finds a new node's certificate good."""
    assert facts["units"]["patroni-node-renew.timer"]["ActiveState"] == "active"
    assert facts["commands"]["renewal"] == {"rc": 0, "out": "success", "err": ""}


def test_no_package_is_half_installed(facts: dict[str, Any]) -> None:
    assert facts["commands"]["audit"]["out"] == ""
    rows = [line.split() for line in facts["commands"]["packages"]["out"].splitlines()]
    assert rows
    assert [row for row in rows if row[2] != "ii"] == []
