"""A restart changes nothing but the boot: the same node, the same data, leading again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def _lasting(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine-id": facts["files"]["/etc/machine-id"]["content"],
        "host keys": facts["commands"]["host keys"]["out"],
        "hostname": facts["commands"]["hostname"]["out"],
        "patroni.yml": facts["files"]["/etc/patroni/patroni.yml"]["content"],
        "cluster": facts["sql"]["identifier"],
        "authority": facts["files"]["/etc/patroni/tls/ca.pem"]["content"],
        "certificate": facts["files"]["/etc/patroni/tls/node.pem"]["content"],
        "protection": facts["files"]["/var/lib/patroni-node/security.json"]["content"],
    }


def test_note_what_must_last(facts: dict[str, Any], node: dict[str, Any]) -> None:
    """Runs before the restart; the tests below compare with what it wrote down."""
    noted = {"lasting": _lasting(facts), "boot": facts["commands"]["boot"]["out"]}
    Path(node["before_reboot"]).write_text(json.dumps(noted), encoding="utf-8")
    assert all(noted["lasting"].values())


@pytest.fixture(scope="module")
def before(node: dict[str, Any]) -> dict[str, Any]:
    return json.loads(Path(node["before_reboot"]).read_text(encoding="utf-8"))


@pytest.mark.rebooted
def test_it_was_restarted(facts: dict[str, Any], before: dict[str, Any]) -> None:
    assert facts["commands"]["boot"]["out"] != before["boot"]


@pytest.mark.rebooted
def test_identity_lasts(facts: dict[str, Any], before: dict[str, Any]) -> None:
    assert _lasting(facts) == before["lasting"]


@pytest.mark.rebooted
def test_leads_again_with_its_data(facts: dict[str, Any], before: dict[str, Any]) -> None:
    assert facts["leader"]["status"] == 200, facts["leader"]
    assert before["boot"] in facts["sql"]["written"]
    assert facts["commands"]["boot"]["out"] in facts["sql"]["written"]


@pytest.mark.rebooted
def test_no_unit_failed_again(facts: dict[str, Any]) -> None:
    assert facts["commands"]["failed units"]["out"] == ""
    assert facts["commands"]["system"]["out"] == "running"


@pytest.mark.rebooted
def test_restart_left_one_service_in_consul(facts: dict[str, Any], node: dict[str, Any]) -> None:
    (entry,) = json.loads(facts["consul service"]["body"])
    assert entry["ServiceAddress"] == node["address"]
