"""What is kept of a verification: systemd's answers, what a console becomes, and that nothing secret is in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from foundry import evidence, files, run
from foundry.errors import VerifyError
from foundry.evidence import Boot, Unit
from foundry.machine import Machine

BEGIN, ACTIVE, ENDED = (
    "InactiveExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
)


def manager(initrd: int = 2_000_000, userspace: int = 5_000_400, finish: int = 47_123_456) -> str:
    return (
        f"InitRDTimestampMonotonic={initrd}\n"
        f"UserspaceTimestampMonotonic={userspace}\n"
        f"FinishTimestampMonotonic={finish}\n"
    )


def unit(name: str, begin: int, active: int, after: str = "", ended: int = 0) -> str:
    # In systemctl's own order, which is not that in which one asks.
    return f"Id={name}\nAfter={after}\n{ENDED}={ended}\n{BEGIN}={begin}\n{ACTIVE}={active}\n"


UNITS = (
    unit("patroni.service", 40_000_000, 45_000_000, "consul.service once.service late.service network.target"),
    unit("consul.service", 39_000_000, 39_500_000, "network.target"),
    # Runs once and ends, so it was never active; and it is what Patroni waited for last.
    unit("once.service", 30_000_000, 0, "network.target patroni.service", ended=39_900_000),
    # Started anew meanwhile: it cannot be what Patroni waited for.
    unit("late.service", 50_000_000, 50_100_000),
    unit("network.target", 20_000_000, 20_000_000, "slow=1.mount"),
    unit("slow=1.mount", 6_000_000, 19_999_000),
    unit("starting.service", 47_000_000, 0),
    unit("never.service", 0, 0),
)
SHOWN = "\n".join((manager(), *UNITS))
JOURNAL = "\n".join(
    json.dumps({"__MONOTONIC_TIMESTAMP": str(moment), "MESSAGE": text})
    for moment, text in [
        (44_000_000, "2026-11-24 14:52:22,301 INFO: postmaster pid=612"),
        (44_500_000, "localhost:5432 - rejecting connections"),
        (45_000_000, "localhost:5432 - accepting connections"),
        (45_100_400, "2026-11-24 14:52:25,301 INFO: no action. I am (pg-1), the leader with the lock"),
        (55_000_000, "2026-11-24 14:52:35,301 INFO: no action. I am (pg-1), the leader with the lock"),
        (56_000_000, "2026-11-24 14:52:35,301 INFO: postmaster pid=700"),
    ]
)


def machine(*answers: str) -> Machine:
    left = list(answers)

    def ssh(command: str, **_: Any) -> run.Result:
        return run.Result((), 0, left.pop(0), None)

    return cast(Machine, SimpleNamespace(ssh=ssh, spec=SimpleNamespace(name="pg-1")))


@pytest.fixture
def boot() -> Boot:
    return evidence.boot(machine(SHOWN), "booted")


def test_the_parts_of_a_boot_add_up(boot: Boot) -> None:
    assert (boot.kernel, boot.initrd, boot.userspace) == (2000, 3000, 42123)
    assert boot.total == 47123


def test_without_systemd_in_the_initrd_its_time_is_the_kernels() -> None:
    found = evidence.boot(machine("\n".join((manager(initrd=0), *UNITS))), "booted")
    assert (found.kernel, found.initrd, found.userspace) == (5000, 0, 42123)


def test_units_in_the_order_of_their_start(boot: Boot) -> None:
    assert boot.units == (
        Unit("slow=1.mount", 6000, 19999),
        Unit("network.target", 20000, 20000),
        Unit("once.service", 30000, 39900),
        Unit("consul.service", 39000, 39500),
        Unit("patroni.service", 40000, 45000),
        Unit("starting.service", 47000, None),
        Unit("late.service", 50000, 50100),
    )
    assert [u.took for u in boot.units[-3:]] == [5000, 0, 100]


def test_the_chain_is_of_what_was_ready_last_before_each_start(boot: Boot) -> None:
    assert boot.chain == ("patroni.service", "once.service", "network.target", "slow=1.mount")


def test_a_chain_that_bites_its_tail_ends() -> None:
    """systemd drops a job of an ordering cycle, and keeps the ordering."""
    shown = (
        unit("patroni.service", 9_000_000, 9_500_000, "a.target"),
        unit("a.target", 8_000_000, 8_000_000, "b.target"),
        unit("b.target", 8_000_000, 8_000_000, "a.target"),
    )
    found = evidence.boot(machine("\n".join((manager(), *shown))), "booted")
    assert found.chain == ("patroni.service", "a.target", "b.target")


def test_a_unit_started_again_counts_as_it_is_now() -> None:
    again = unit("patroni.service", 40_000_000, 45_000_000, ended=39_000_000)
    found = evidence.boot(machine("\n".join((manager(), again))), "booted")
    assert found.units == (Unit("patroni.service", 40000, 45000),)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Failed to connect to bus",
        manager(),
        "\n".join((manager(finish=0), *UNITS)),
        "\n".join((manager(userspace=0), *UNITS)),
        SHOWN.replace("After=", "Before="),
        SHOWN.replace("=45000000", "=soon"),
        SHOWN.replace("Id=patroni.service", "Id=other.service"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(answer: str) -> None:
    with pytest.raises(VerifyError, match=r"pg-1: what systemctl says of the boot cannot be read"):
        evidence.boot(machine(answer), "booted")


def test_milestones_are_the_first_of_their_kind() -> None:
    found = evidence.milestones(machine(f"{JOURNAL}\nHint: you are not seeing\n[]\n" + '{"MESSAGE": [1, 2]}'))
    assert found == {"PostgreSQL starts": 44000, "PostgreSQL accepts connections": 45000, "Patroni leads": 45100}
    assert evidence.milestones(machine("")) == {}


@pytest.mark.parametrize("text", ["initialized a new cluster", "promoted self to leader by acquiring session lock"])
def test_a_node_leads_by_whatever_way(text: str) -> None:
    line = json.dumps({"__MONOTONIC_TIMESTAMP": "7000", "MESSAGE": f"INFO: {text}"})
    assert evidence.milestones(machine(line)) == {"Patroni leads": 7}


RAW = (
    b"\x1b[H\x1b[J\x1b[1;1H\x1b[?25l\x1b[m\x1b[2;24HGNU GRUB  version 2.06\r\n\r\n\x1b[4;2H+----+\x1b[5;2H|\x1b[5;79H|"
    b"\x1b[7m\x1b[5;3H*Debian   \x1b[m\r\n[    0.000000] Linux version 6.1\r\n[\x1b[0;32m  OK  \x1b[0m] Started "
    b"\x1b[0;1;39mx.service\x1b[0m.\r\r\n\x1b]0;title\x07caf\xc3\xa9 \xff\x00\x08\x9b31m \xe2\x80\xae\r\nlast"
)


def test_a_console_becomes_text() -> None:
    assert evidence.plain(RAW).splitlines() == [
        "GNU GRUB  version 2.06",
        "*Debian",
        "[    0.000000] Linux version 6.1",
        "[  OK  ] Started x.service.",
        "café \ufffd\ufffd31m",
        "last",
    ]
    assert evidence.plain(b"") == ""


@pytest.fixture
def verdict(tmp_path: Path) -> Path:
    return tmp_path / "x.qcow2.verdict-bios.json"


def console(verdict: Path, text: str = "all is well\n") -> Path:
    path = verdict.with_name("raw")
    path.write_text(text)
    return path


def test_what_is_written_is_read_again(verdict: Path, boot: Boot) -> None:
    boot = replace(boot, milestones={"Patroni leads": 45100})
    digests = evidence.write(verdict, console(verdict), [boot, replace(boot, phase="rebooted")], "s3cret")
    assert evidence.load(evidence.path(verdict, "boot.json")) == (boot, replace(boot, phase="rebooted"))
    assert (verdict.parent / "x.qcow2.verdict-bios.console.log").read_text() == "all is well\n"
    assert evidence.refusal(verdict, digests) is None
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values())


def test_other_values_are_no_boots(tmp_path: Path) -> None:
    assert evidence.load(tmp_path / "none") is None
    for text in ("", "{}", "[]", '{"boots": 1}', '{"boots": [{"units": [], "chain": []}]}', '{"boots": [1]}'):
        files.write(tmp_path / "boot.json", text)
        assert evidence.load(tmp_path / "boot.json") is None


@pytest.mark.parametrize("words", ["key: s3cret\n", "s3\x1b[0mcret", "s\x003cret"])
def test_a_secret_on_the_console_is_refused_and_nothing_written(verdict: Path, boot: Boot, words: str) -> None:
    with pytest.raises(VerifyError, match=r"the node's key is in the console\.log") as caught:
        evidence.write(verdict, console(verdict, words), [boot], "s3cret")
    assert "s3cret" not in str(caught.value) + str(caught.value.details) + str(caught.value.hint)
    assert [p.name for p in verdict.parent.iterdir()] == ["raw"]


def test_a_secret_in_the_timeline_is_refused(verdict: Path, boot: Boot) -> None:
    named = replace(boot, units=(Unit("run-s3cret.mount", 1, 2),))
    with pytest.raises(VerifyError, match=r"the node's key is in the boot\.json"):
        evidence.write(verdict, console(verdict), [named], "s3cret")
    assert [p.name for p in verdict.parent.iterdir()] == ["raw"]


def test_no_console_is_no_evidence(verdict: Path, boot: Boot) -> None:
    with pytest.raises(VerifyError, match="console was not kept"):
        evidence.write(verdict, None, [boot], "s3cret")


def test_all_of_a_verdict_goes_together(verdict: Path, boot: Boot) -> None:
    evidence.write(verdict, console(verdict), [boot], "s3cret")
    other = verdict.with_name("x.qcow2.verdict-uefi.json")
    for name in (verdict, verdict.with_suffix(".xml"), other):
        name.write_text("{}")
    evidence.remove(verdict)
    assert sorted(p.name for p in verdict.parent.iterdir()) == ["raw", other.name]
    evidence.remove(verdict)
