"""What a cluster says of itself, and how long it is waited for."""

from __future__ import annotations

import json
import time

import pytest

from foundry import run
from foundry.errors import Cancelled, FoundryError, GuestError
from foundry.lab.cluster import LIST, Member, parse_members
from tests.unit.lab.fakes import FakeMachine, answer, cluster

FORMED = answer(("b2", "replica", "streaming"), ("a1", "leader", "running"))


def test_members_are_sorted_and_keep_what_patroni_says() -> None:
    entry = {"name": "b", "role": "replica", "state": "streaming", "host": "10.0.0.2", "timeline": 3, "lag": 17}
    text = json.dumps(
        {"members": [entry, {"name": "a", "role": "leader", "state": "running", "pending_restart": True}]}
    )
    assert parse_members(text) == [
        Member("a", "", "leader", "running", pending_restart=True),
        Member("b", "10.0.0.2", "replica", "streaming", 3, 17),
    ]


def test_an_unknown_lag_is_no_number() -> None:
    text = json.dumps({"members": [{"name": "a", "role": "replica", "state": "starting", "lag": "unknown"}]})
    assert parse_members(text) == [Member("a", "", "replica", "starting")]


@pytest.mark.parametrize(
    "text",
    ["", "curl: (7) refused", "null", "3", "[]", "{}", '{"members": []}', '{"members": [3]}', '{"members": [{}]}'],
)
def test_what_is_no_answer_has_no_members(text: str) -> None:
    assert parse_members(text) == []


@pytest.mark.parametrize(
    ("role", "state", "healthy"),
    [
        ("leader", "running", True),
        ("replica", "streaming", True),
        ("sync_standby", "streaming", True),
        ("replica", "running", False),
        ("leader", "starting", False),
        ("replica", "start failed", False),
    ],
)
def test_who_leads_runs_and_all_others_stream(role: str, state: str, healthy: bool) -> None:
    assert Member("a", "", role, state).healthy is healthy


def test_a_cluster_has_formed_when_one_leads_and_all_others_stream() -> None:
    found = cluster(a1=FakeMachine(answers={"/cluster": FORMED}), b2=FakeMachine())
    assert [m.name for m in found.wait_formed(2)] == ["a1", "b2"]
    assert found.leader() == "a1"


@pytest.mark.parametrize(
    "seen",
    [
        answer(("a1", "leader", "running")),
        answer(("a1", "leader", "running"), ("b2", "leader", "running")),
        answer(("a1", "replica", "streaming"), ("b2", "replica", "streaming")),
        answer(("a1", "leader", "running"), ("b2", "replica", "starting")),
    ],
)
def test_what_has_not_formed_is_said_when_time_is_over(seen: str) -> None:
    found = cluster(a1=FakeMachine(answers={"/cluster": seen}), b2=FakeMachine())
    with pytest.raises(GuestError, match="a cluster of 2: not within 0 s") as caught:
        found.wait_formed(2, 0.01)
    assert "name='a1'" in (caught.value.details or "")


def test_a_node_that_is_off_is_not_asked() -> None:
    found = cluster(a1=FakeMachine("the machine is off"), b2=FakeMachine(answers={"/cluster": FORMED, LIST: "table"}))
    assert len(found.members()) == 2
    assert found.patronictl_list() == "table"


def test_nothing_is_waited_for_when_all_machines_have_died() -> None:
    begin = time.monotonic()
    with pytest.raises(GuestError, match="a cluster of 2: it burnt down"):
        cluster(a1=FakeMachine("it burnt down"), b2=FakeMachine("this one too")).wait_formed(2)
    assert time.monotonic() - begin < 5


def test_a_cluster_that_is_being_made_needs_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would go on without it, and be waited for in vain."""
    seen = answer(("a1", "leader", "running"))
    found = cluster(a1=FakeMachine(answers={"/cluster": seen}), b2=FakeMachine("it burnt down"))
    found.network = Joined()  # type: ignore[assignment]
    for name in ("boot", "wait_ready"):
        monkeypatch.setattr(found, name, lambda *_: None)
    with pytest.raises(GuestError, match="a cluster of 2: b2: it burnt down"):
        found.up()


def test_patroni_is_woken_while_its_cluster_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    leads, lost, off = FakeMachine(answers={"/cluster": FORMED}), FakeMachine(lost=True), FakeMachine("off")
    found = cluster(a1=leads, b2=lost)
    found.network = Joined()  # type: ignore[assignment]
    for name in ("boot", "wait_ready"):
        monkeypatch.setattr(found, name, lambda *_: None)
    found.machines["c3"] = off
    found.up()
    assert [sum('method="PATCH"' in words for words in m.asked) for m in (leads, lost, off)] == [1, 1, 0]
    found.wait_formed(2)
    assert sum('method="PATCH"' in words for words in leads.asked) == 1


def test_a_machine_that_is_slow_to_be_woken_is_left_alone_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, woken = [100.0], []

    def wake(*_words: object, **_options: object) -> None:
        woken.append(now[0])
        now[0] += 4

    machine = FakeMachine()
    monkeypatch.setattr(machine, "ssh", wake)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    found = cluster(a1=machine)
    while now[0] < 200:
        found._wake()
        now[0] += 0.25
    assert woken == [100.0 + 8 * n for n in range(13)]


class Joined:
    def join(self, cidr: str) -> list[str]:
        return []


def test_an_interrupt_ends_the_wait() -> None:
    run.cancel()
    with pytest.raises(Cancelled):
        cluster(a1=FakeMachine()).wait_formed(1)


def test_why_no_node_has_a_table() -> None:
    with pytest.raises(FoundryError, match="no node of the lab answers") as caught:
        cluster(a1=FakeMachine("off"), b2=FakeMachine()).patronictl_list()
    assert (caught.value.details or "").startswith("a1: off\nb2: ")


def test_a_node_that_is_lost_is_no_reason_not_to_ask_the_next() -> None:
    found = cluster(a1=FakeMachine(lost=True), b2=FakeMachine(answers={"/cluster": FORMED, LIST: "table"}))
    assert found.leader() == "a1"
    assert found.patronictl_list() == "table"
    with pytest.raises(FoundryError) as caught:
        cluster(a1=FakeMachine(lost=True)).patronictl_list()
    assert caught.value.details == "a1: ssh: the connection was lost"
