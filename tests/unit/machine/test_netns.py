"""What a network's switches are told: losses, virtual machines' cards, and who joins from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry.machine import netns
from foundry.machine.netns import Network, Nic

Told = list[str]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    """What ip(8) and nft(8) would have been told."""
    told: Told = []
    monkeypatch.setattr(netns, "NAMESPACES", tmp_path)
    monkeypatch.setattr(netns.cgroups, "sweep", lambda: None)
    monkeypatch.setattr(netns, "_ip", lambda *words, check=True, cleaning=False: told.append(" ".join(words)))
    monkeypatch.setattr(netns, "_nft", lambda space, script: told.append(script))
    monkeypatch.setattr(netns.run, "find", lambda *_: Path("/sbin/x"))
    return told


@pytest.fixture
def network(words: Told) -> Network:
    """Three machines, the second of which has two cards; what that took is forgotten."""
    made = Network()
    made.attach("a", [Nic("52:54:00:00:00:01")])
    made.attach("b", [Nic("52:54:00:00:00:02"), Nic("52:54:00:00:00:03", switch=1)])
    made.taps("c", [Nic("52:54:00:00:00:04")])
    words.clear()
    return made


def losses(words: Told) -> list[tuple[str, str]]:
    """The ports between which frames are lost; the table is made anew before."""
    (script,) = words
    rules = script.split("; ")
    table = "table bridge faults"
    assert rules[:3] == [f"add {table}", f"delete {table}", f"add {table}"]
    assert "hook forward" in script
    found = [rule.split() for rule in rules if rule.startswith("add rule")]
    assert all(rule[-1] == "drop" for rule in found)
    return [(rule[rule.index("iifname") + 1], rule[rule.index("oifname") + 1]) for rule in found]


def test_a_loss_has_one_direction(network: Network, words: Told) -> None:
    network.drop([("a", "c")])
    assert losses(words) == [("p1n0", "p3n0")]


def test_a_loss_concerns_every_card(network: Network, words: Told) -> None:
    network.drop([("b", "a"), ("c", "a")])
    assert losses(words) == [("p2n0", "p1n0"), ("p2n1", "p1n0"), ("p3n0", "p1n0")]


def test_a_split_loses_both_directions_between_groups_and_none_within(network: Network, words: Told) -> None:
    network.split(["a"])
    assert sorted(losses(words)) == sorted(
        [("p1n0", x) for x in ("p2n0", "p2n1", "p3n0")] + [(x, "p1n0") for x in ("p2n0", "p2n1", "p3n0")]
    )
    words.clear()
    network.split(["a", "c"], ["b"])
    assert not {("p1n0", "p3n0"), ("p3n0", "p1n0")} & set(losses(words))
    words.clear()
    network.split(["a", "b", "c"])
    assert losses(words) == []


def test_a_name_that_is_no_machines_is_no_group(network: Network, words: Told) -> None:
    """Else a slip in a test would leave the network whole, and the test would pass."""
    with pytest.raises(ValueError, match="pg-srv9: no machine of this network"):
        network.split(["a", "pg-srv9"], ["b"])
    assert words == []


def test_healing_leaves_no_rule(network: Network, words: Told) -> None:
    network.heal()
    assert losses(words) == []


def test_a_virtual_machine_has_taps_that_it_keeps(network: Network, words: Told) -> None:
    nics = [Nic("52:54:00:00:00:05"), Nic("52:54:00:00:00:06", switch=1)]
    assert network.taps("d", nics) == ["p4n0", "p4n1"]
    assert f"-n {network.name} tuntap add dev p4n0 mode tap" in words
    assert f"-n {network.name} link set p4n1 master br1 up" in words
    words.clear()
    assert network.taps("d", nics) == ["p4n0", "p4n1"]
    assert words == []


def test_who_joins_is_on_the_first_switch(network: Network, words: Told) -> None:
    joined = network.join("10.129.0.2/24")
    assert joined == ["nsenter", f"--net={network.switch}"]
    assert words[-1] == f"-n {network.name} address replace 10.129.0.2/24 dev br0"


def test_closing_removes_each_namespace_even_after_an_interrupt(words: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    with Network() as network:
        network.attach("a", [Nic("52:54:00:00:00:01")])
        seen: list[tuple[tuple[str, ...], bool]] = []
        monkeypatch.setattr(netns, "_ip", lambda *told, check=True, cleaning=False: seen.append((told, cleaning)))
    assert seen == [(("netns", "delete", f"{network.name}-0"), True), (("netns", "delete", network.name), True)]


def test_sweeping_goes_on_after_an_interrupt(words: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(netns, "_ip", lambda *told, check=True, cleaning=False: seen.append(cleaning))
    (tmp_path / "pf-999999999-abcdef").touch()
    netns.sweep()
    assert seen == [True]
