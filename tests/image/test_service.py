"""The units and the kernel under them: traps 9, 10 and 12, sandboxing, and what happens when memory runs out."""

from __future__ import annotations

import re
from typing import Any

import pytest

MOST_EXPOSED = 4.0


UNITS = ["patroni", "patroni-node", "consul", "patroni-node-acl", "patroni-node-renew"]


@pytest.mark.parametrize("unit", [f"{name}.service" for name in UNITS])
def test_systemd_shuts_the_services_in(facts: dict[str, Any], unit: str) -> None:
    table = facts["commands"]["exposure"]["out"]
    found = re.search(rf"level for {re.escape(unit)}: (\d+\.\d+)", table)
    assert found, table
    assert float(found[1]) <= MOST_EXPOSED


def test_active_means_running_and_a_stop_is_waited_for(facts: dict[str, Any]) -> None:
    """Traps 9 and 10: a timeout that kills Patroni would leave PostgreSQL running without it."""
    unit = facts["units"]["patroni.service"]
    assert (unit["Type"], unit["KillMode"], unit["Restart"]) == ("notify", "process", "on-failure")
    assert unit["TimeoutStopUSec"] == "1h"
    assert unit["MemoryAccounting"] == "yes"


def test_addresses_are_there_before_patroni(facts: dict[str, Any]) -> None:
    """Trap 12."""
    assert "network-online.target" in facts["units"]["patroni.service"]["After"].split()
    assert "cloud-final.service" not in facts["units"]["patroni.service"]["After"]


def test_a_clock_that_is_set_back_puts_no_leader_to_sleep(facts: dict[str, Any]) -> None:
    """debian/venv-patches/clock-set-back.patch."""
    assert _patronis_code(facts)[:1] == ["10.0"]


def test_patroni_asks_who_it_is_and_bounds_what_it_reads(facts: dict[str, Any]) -> None:
    """debian/venv-patches/rest-api-bodies.patch."""
    answers = ["who is it", "400", "400", "413", "400", "too slow"]
    assert _patronis_code(facts)[1:] == answers


def _patronis_code(facts: dict[str, Any]) -> list[str]:
    ran = facts["commands"]["patroni's code"]
    assert (ran["rc"], ran["err"]) == (0, "")
    return ran["out"].splitlines()


def test_without_memory_a_backend_goes_first_and_alone(facts: dict[str, Any]) -> None:
    """PostgreSQL 15, 19.4.4: the postmaster and Patroni are protected, what they start is not."""
    scores = {name: facts["commands"][name]["out"] for name in ("patroni", "postmaster", "backend")}
    assert scores == {"patroni": "-900", "postmaster": "-900", "backend": "0"}
    assert facts["units"]["patroni.service"]["OOMPolicy"] == "continue"


def test_the_kernel_promises_no_memory_that_is_not_there(facts: dict[str, Any]) -> None:
    settings = dict(re.findall(r"(\S+) = (\d+)", facts["commands"]["kernel settings"]["out"]))
    memory = {"vm.overcommit_memory": "2", "vm.overcommit_ratio": "80", "vm.swappiness": "1"}
    assert settings == {**memory, "kernel.yama.ptrace_scope": "1"}


def test_transparent_huge_pages_are_only_for_who_asks(facts: dict[str, Any]) -> None:
    assert "[madvise]" in facts["commands"]["transparent huge pages"]["out"]
