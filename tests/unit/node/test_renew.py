"""A certificate that is due is replaced and read again; nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from conftest import MINIMAL, Node

from patroni_node import authority
from patroni_node.authority import Member
from patroni_node.commands import Ended
from patroni_node.configure import configure
from patroni_node.decide import Machine
from patroni_node.errors import NodeError
from patroni_node.renew import renew
from patroni_node.tls import Tls


class Services:
    """systemctl, as renew uses it."""

    def __init__(self, active: Sequence[str] = ("consul", "patroni"), fails: str = "") -> None:
        self.active, self.fails = active, fails
        self.reloaded: list[str] = []

    def __call__(self, words: Sequence[str], seconds: float, stop: Callable[[], bool]) -> Ended:
        if words[1] == "show":
            names = [word for word in words if word.endswith(".service")]
            states = ((n, "active" if n.removesuffix(".service") in self.active else "inactive") for n in names)
            return Ended(0, "\n".join(f"Id={name}\nActiveState={state}\n" for name, state in states))
        assert words[:2] == ["systemctl", "reload"]
        self.reloaded.append(words[2].removesuffix(".service"))
        return Ended(1 if self.fails and self.fails in words[2] else 0, "Job failed")


def due(node: Node, text: str = "new") -> Machine:
    def certify(material: bytes, member: Member, present: Tls | None, now: datetime, before: timedelta) -> Tls:
        assert before == authority.RENEW_BEFORE
        assert present is not None
        return Tls(present.ca, f"{text} certificate\n", f"{text} key\n")

    return replace(node.machine, certify=certify)


@pytest.fixture
def ran(node: Node) -> Node:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    return node


def test_nothing_is_due(ran: Node) -> None:
    services = Services()
    assert renew(ran.paths, ran.machine, services) == []
    assert services.reloaded == []


def test_all_who_use_it_get_the_new_one(ran: Node) -> None:
    services = Services()
    before = ran.paths.patroni_yml.read_bytes()
    changed = renew(ran.paths, due(ran), services)
    tls, consul = ran.paths.tls, (ran.paths.consul_certificate, ran.paths.consul_key)
    assert set(changed) == {tls / "node.pem", tls / "node.key", *consul}
    assert (tls / "node.key").read_text() == ran.paths.consul_key.read_text() == "new key\n"
    assert services.reloaded == ["consul", "patroni"]
    assert ran.paths.patroni_yml.read_bytes() == before
    assert ran.paths.ready.exists()


def test_a_changed_node_yml_waits_for_who_changed_it(ran: Node) -> None:
    before = ran.paths.patroni_yml.read_bytes()
    ran.write(MINIMAL + "tags: {nofailover: true}\ntls: off\n")
    assert renew(ran.paths, due(ran), Services()) == []
    assert ran.paths.patroni_yml.read_bytes() == before
    assert (ran.paths.tls / "node.pem").exists()


def test_before_the_node_is_configured_there_is_nothing_to_do(node: Node) -> None:
    node.write(MINIMAL)
    assert renew(node.paths, due(node), Services()) == []
    assert not node.paths.tls.exists()


def test_who_does_not_run_reads_it_when_it_starts(ran: Node) -> None:
    services = Services(active=["consul"])
    renew(ran.paths, due(ran), services)
    assert services.reloaded == ["consul"]


def test_who_could_not_be_told_is_named(ran: Node) -> None:
    services = Services(fails="consul")
    with pytest.raises(NodeError, match=r"consul goes on with the old certificate .* `systemctl reload consul`"):
        renew(ran.paths, due(ran), services)
    assert services.reloaded == ["consul", "patroni"]
