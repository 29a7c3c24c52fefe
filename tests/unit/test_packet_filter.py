"""nft loads what packet_filter writes, and real packets get in or do not."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from tests.unit.segment import EVERYBODY, FAMILIES, FRIENDS, NODE, STRANGER, TCP, UDP, Segment, script

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.real_process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces"),
]

OURS = (5432, 8008, 8300, 8301)
NOBODYS = (8302, 8500, 8502, 8600)


def outcome(*open_: tuple[int, ...]) -> dict[int, str]:
    ports = {port for group in open_ for port in group}
    return {port: "hello" if port in ports else "ConnectionRefusedError" for port in TCP}


@FAMILIES
def test_a_neighbour_gets_in_and_a_stranger_on_the_same_segment_does_not(
    segment: Segment, tmp_path: Path, family: int
) -> None:
    node = NODE[family]
    assert segment.connect("stranger", node) == outcome(TCP)
    segment.load(script(family), tmp_path / "filter")
    assert segment.connect("stranger", node) == outcome((22,))
    assert segment.refused() == len(OURS + NOBODYS)
    assert segment.connect("friend", node) == outcome((22,), OURS)
    assert segment.connect("node", node) == outcome(TCP)
    assert segment.connect("node", ("127.0.0.1", "::1")[family]) == outcome(TCP)


@FAMILIES
def test_datagrams_of_a_stranger_are_not_heard(segment: Segment, tmp_path: Path, family: int) -> None:
    node = NODE[family]

    def send() -> list[str]:
        for port in UDP:
            for who in ("friend", "stranger", "node"):
                segment.send(who, node, port, f"{who} {port}")
        return segment.heard(node)

    everything = [f"{who} {port}" for port in UDP for who in ("friend", "stranger", "node")]
    assert sorted(send()) == sorted(everything)
    segment.load(script(family), tmp_path / "filter")
    kept = {"friend 53", "stranger 53", "friend 8301", *(f"node {port}" for port in UDP)}
    assert sorted(send()) == sorted(kept)
    segment.load(script(family, gossip=True), tmp_path / "filter")
    assert sorted(send()) == sorted({*kept, "stranger 8301"})


@FAMILIES
def test_a_source_that_only_the_node_itself_has_is_a_lie_on_a_wire(
    segment: Segment, tmp_path: Path, family: int
) -> None:
    node = NODE[family]
    # IPv6 has no setting that lets ::1 in from a wire.
    lies = [(node, "own"), *([("127.0.0.1", "loopback")] if family == 0 else [("::ffff:10.129.0.22", "mapped")])]

    def forge() -> list[str]:
        for source, name in lies:
            segment.forge(source, node, 8301, name)
        return segment.heard(node)

    assert forge() == [name for _, name in lies]
    segment.load(script(family, EVERYBODY), tmp_path / "filter")
    assert forge() == []
    assert segment.refused() == len(lies)


def test_a_syn_whose_flags_are_in_the_second_fragment_is_refused(segment: Segment, tmp_path: Path) -> None:
    segment.load(script(1), tmp_path / "filter")
    segment.forge(STRANGER[1], NODE[1], 8300, "", "fragments")
    assert segment.heard(NODE[1]) == []
    assert segment.refused() == 1


def test_a_syn_whose_port_is_in_the_second_fragment_is_refused(segment: Segment, tmp_path: Path) -> None:
    """No rule about ports is about either of them, and the kernel puts them together after the filter."""

    def forged() -> int:
        before = segment.segments()
        segment.forge(STRANGER[1], NODE[1], 8300, "", "headers")
        assert segment.heard(NODE[1]) == []
        return segment.segments() - before

    segment.load(script(1), tmp_path / "filter")
    assert forged() == 0
    assert segment.refused() == 1
    # Last, since the node answers it, and again a second later.
    segment.run("node", "nft", "delete", "table", "inet", "patroni_node")
    assert forged() > 0


def talk(host: str) -> str:
    """A client that says what it is told, and prints what comes back."""
    return (
        f"import socket, sys\ns = socket.create_connection(({host!r}, 5432), 5)\n"
        "print(s.recv(5).decode(), flush=True)\n"
        "for line in sys.stdin:\n    s.sendall(line.encode())\n    print(s.recv(100).decode(), end='', flush=True)\n"
    )


@FAMILIES
def test_what_is_connected_stays_when_networks_change(segment: Segment, tmp_path: Path, family: int) -> None:
    node = NODE[family]
    segment.load(script(family), tmp_path / "filter")
    client = segment.popen("friend", talk(node))
    assert client.stdin and client.stdout
    try:
        assert client.stdout.readline() == "hello\n"
        # Many times: there is no moment in which nothing, or everything, is permitted.
        for turn in range(20):
            segment.load(script(family, FRIENDS if turn % 2 else []), tmp_path / "filter")
            client.stdin.write(f"{turn}\n")
            client.stdin.flush()
            assert client.stdout.readline() == f"{turn}\n"
        segment.load(script(family, []), tmp_path / "filter")
        assert segment.connect("friend", node, (5432,)) == {5432: "ConnectionRefusedError"}
        client.stdin.write("still here\n")
        client.stdin.flush()
        assert client.stdout.readline() == "still here\n"
    finally:
        client.kill()
        client.wait()
        client.stdin.close()
        client.stdout.close()


def test_tables_of_others_are_left_alone(segment: Segment, tmp_path: Path) -> None:
    segment.run("node", "nft", "add table inet filter; add chain inet filter mine; add rule inet filter mine counter")
    before = segment.run("node", "nft", "list", "table", "inet", "filter")
    for _ in range(2):
        segment.load(script(0), tmp_path / "filter")
    assert segment.run("node", "nft", "list", "table", "inet", "filter") == before
    tables = segment.run("node", "nft", "list", "tables").splitlines()
    assert tables == ["table inet filter", "table inet patroni_node"]


def test_networks_that_overlap_or_hold_everybody_are_loaded(segment: Segment, tmp_path: Path) -> None:
    nested = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "10.129.0.0/24", "10.129.0.66/32", "fd00::/8")]
    for networks in (nested, [*nested, *EVERYBODY], []):
        segment.load(script(0, networks), tmp_path / "filter")
    segment.load(script(0, nested), tmp_path / "filter")
    assert segment.connect("stranger", NODE[0], OURS) == dict.fromkeys(OURS, "hello")


def test_what_is_installed_is_loaded_again_after_a_flush_and_taken_away_with_its_file(segment: Segment) -> None:
    assert segment.load_installed(None) == (0, "")
    assert segment.connect("stranger", NODE[0]) == outcome(TCP)
    for _ in range(2):
        assert segment.load_installed(script(0)) == (0, "")
        assert segment.connect("stranger", NODE[0]) == outcome((22,))
        # As /etc/nftables.conf begins.
        segment.run("node", "nft", "flush", "ruleset")
    assert segment.load_installed(script(0)) == (0, "")
    assert "log prefix" in segment.run("node", "nft", "list", "chain", "inet", "patroni_node", "refuse")
    assert segment.load_installed(None) == (0, "")
    assert segment.connect("stranger", NODE[0]) == outcome(TCP)


def test_what_cannot_be_loaded_is_said_and_leaves_the_earlier_rules(segment: Segment) -> None:
    assert segment.load_installed(script(0)) == (0, "")
    code, said = segment.load_installed(script(0, EVERYBODY) + "nonsense\n")
    assert code == 1
    assert "packet-filter.nft was not loaded into the kernel" in said and "systemctl start patroni" in said
    assert segment.connect("stranger", NODE[0]) == outcome((22,))


def test_nothing_starts_where_the_filter_cannot_be_loaded() -> None:
    units = ROOT / "files/usr/lib/systemd/system"
    command = "/usr/libexec/patroni-node/packet-filter"
    # Without a "-", so that a failure is one of the unit, and the mark that the services assert goes away with it.
    assert f"\nExecStartPost=+{command}\n" in (units / "patroni-node.service").read_text()
    again = (units / "nftables.service.d/patroni-node.conf").read_text()
    assert [f"{when}=-{command}" in again for when in ("ExecStartPost", "ExecReload", "ExecStopPost")] == [True] * 3
