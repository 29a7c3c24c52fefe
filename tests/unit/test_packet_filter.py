"""nft loads what packet_filter writes, and real packets get in or do not."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patroni_node.network import Network, own_network
from patroni_node.packet_filter import ruleset
from tests.unit.segment import FRIEND, NODE, STRANGER, TCP, UDP, Segment

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.real_process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces"),
]

OURS = (5432, 8008, 8300, 8301)
NOBODYS = (8302, 8500, 8502, 8600)
FRIENDS = [own_network(ipaddress.ip_address(text)) for text in FRIEND]
EVERYBODY: list[Network] = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def shared() -> Iterator[Segment]:
    segment = Segment()
    yield segment
    segment.close()


@pytest.fixture
def segment(shared: Segment) -> Segment:
    """The segment, with a node that filters nothing."""
    shared.run("node", "nft", "flush", "ruleset")
    return shared


def script(
    family: int,
    networks: list[Network] = FRIENDS,
    *,
    gossip: bool = False,
    agent: int | None = None,
    database: int | None = None,
) -> str:
    own = ipaddress.ip_address(NODE[family])
    return ruleset(networks, [], own, consul=True, gossip_from_anywhere=gossip, agent=agent, database=database)


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


@FAMILIES
def test_no_other_account_answers_in_place_of_the_agent(segment: Segment, tmp_path: Path, family: int) -> None:
    """Whoever took the port while Consul is down was told its management token, and gave Patroni its configuration."""
    loopback = ("127.0.0.1", "::1")[family]
    ports, listens = (8500, 5432), os.geteuid()
    segment.load(script(family, agent=listens), tmp_path / "filter")
    assert segment.connect("node", loopback, ports) == dict.fromkeys(ports, "hello")
    segment.load(script(family, agent=listens + 1), tmp_path / "filter")
    refused = {8500: "TimeoutError", 5432: "hello"}
    assert segment.connect("node", loopback, ports) == refused
    assert segment.refused() > 0
    # As a listener's own overflow makes the kernel do: answers of which it cannot tell whose they are.
    segment.run("node", "sysctl", "-qw", "net.ipv4.tcp_syncookies=2")
    try:
        assert segment.connect("node", loopback, ports) == refused
    finally:
        segment.run("node", "sysctl", "-qw", "net.ipv4.tcp_syncookies=1")


@FAMILIES
def test_no_other_account_answers_in_place_of_postgresql(segment: Segment, tmp_path: Path, family: int) -> None:
    """Whoever took 5432 while PostgreSQL is down could ask its clients for their passwords, in plain text."""
    ports, listens = (5432, 8008, 22), os.geteuid()
    places = (("node", ("127.0.0.1", "::1")[family]), ("friend", NODE[family]))
    for account, outcome_ in ((listens, "hello"), (listens + 1, "TimeoutError")):
        segment.load(script(family, database=account), tmp_path / "filter")
        for who, where in places:
            assert segment.connect(who, where, ports) == {5432: outcome_, 8008: outcome_, 22: "hello"}


@FAMILIES
def test_no_other_account_answers_in_place_of_a_server_of_consul(segment: Segment, tmp_path: Path, family: int) -> None:
    """While Consul is down, and without TLS, who leads sent all of the store, tokens too, to whoever took its port."""
    listens = os.geteuid()
    for account, outcome_ in ((listens, "hello"), (listens + 1, "TimeoutError")):
        segment.load(script(family, agent=account), tmp_path / "filter")
        assert segment.connect("friend", NODE[family], (8300, 8301, 22)) == {
            8300: outcome_,
            8301: outcome_,
            22: "hello",
        }


# Takes a port that another account is to answer, lets nothing there be answered (by a filter of its own, as any account
# may have one: BPF's "return 0"), and connects from it to a client that waits.
_CROSS = """
import ctypes, socket, struct, sys, threading
host, port = sys.argv[1], int(sys.argv[2])
kind = socket.AF_INET6 if ":" in host else socket.AF_INET
def taken():
    s = socket.socket(kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((host, port))
    return s
listener = taken()
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
listener.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(code)))
listener.listen()
told = []
def client():
    with socket.socket(kind) as s:
        s.settimeout(3)
        s.bind((host, 45678))
        begun.set()
        try:
            s.connect((host, port))
            s.sendall(b"a token")
            told.append("told")
        except OSError as error: told.append(type(error).__name__)
begun = threading.Event()
thread = threading.Thread(target=client)
thread.start()
begun.wait()
while thread.is_alive():
    with taken() as s:
        s.settimeout(1)
        try:
            s.connect((host, 45678))
            told.append(s.recv(100).decode())
            break
        except OSError: pass
thread.join()
print(*told)
"""


@FAMILIES
def test_no_other_account_connects_to_those_who_wait_for_the_agent(
    segment: Segment, tmp_path: Path, family: int
) -> None:
    """Two who connect to each other at once are connected (RFC 9293, figure 7), and neither has answered."""
    loopback, listens = ("127.0.0.1", "::1")[family], os.geteuid()
    port = 8501
    segment.load(script(family, agent=listens + 1), tmp_path / "filter")
    assert segment.run("node", sys.executable, "-c", _CROSS, loopback, str(port)) == "TimeoutError\n"


@FAMILIES
def test_no_account_but_the_agents_calls_a_server_of_consul(segment: Segment, tmp_path: Path, family: int) -> None:
    """Servers let this node in, and Raft asks for no token; ports of that number elsewhere are nobody's matter.

    Gossip asks for its key once 20 MiB of a connection are in memory: from one node, any account filled all of them.
    """
    calls, node, stranger = os.geteuid(), NODE[family], STRANGER[family]
    listening = segment.popen("stranger", SERVE.format(stranger))
    assert listening.stdin and listening.stdout and listening.stdout.readline() == "ready\n"
    try:
        for networks, outside in ((FRIENDS, "hello"), (EVERYBODY, "ConnectionRefusedError")):
            segment.load(script(family, networks, agent=calls), tmp_path / "filter")
            assert segment.connect("node", node, (8300, 8301)) == {8300: "hello", 8301: "hello"}
            segment.send("node", node, 8301, "the agent's")
            assert segment.heard(node) == ["the agent's"]
            assert segment.connect("node", stranger, (8300,)) == {8300: "hello"}
            segment.load(script(family, networks, agent=calls + 1), tmp_path / "filter")
            refused = dict.fromkeys((8300, 8301), "ConnectionRefusedError")
            assert segment.connect("node", node, (8300, 8301, 22)) == {**refused, 22: "hello"}
            with pytest.raises(subprocess.CalledProcessError):
                segment.send("node", node, 8301, "not the agent's")
            assert segment.heard(node) == []
            assert segment.connect("node", stranger, (8300,)) == {8300: outside}
    finally:
        listening.kill()
        listening.wait()
        listening.stdin.close()
        listening.stdout.close()


SERVE = """
import socket
s = socket.create_server(("{0}", 8300), family=socket.AF_INET6 if ":" in "{0}" else socket.AF_INET)
print("ready", flush=True)
while True:
    s.accept()[0].sendall(b"hello")
"""


# Takes as many bytes as the first ten say, and says "all"; a client closes first, by a reset, so that its port is free.
# Sockets of _CROSS may still be there, which have let others take their port too.
_AGENT = """
import socket
s = socket.create_server(("127.0.0.1", 8501), reuse_port=True)
print("ready", flush=True)
while True:
    with s.accept()[0] as link:
        try:
            left = int(link.recv(10, socket.MSG_WAITALL))
            while left > 0: left -= len(link.recv(min(left, 65536))) or left + 1
            if left == 0: link.sendall(b"all")
            link.recv(1)
        except OSError: pass
"""
_POUR = """
import os, socket, struct, sys
account, source, target, size = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
os.setresuid(account, account, account)
try:
    with socket.socket() as s:
        s.settimeout(5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.bind((source, 45679))
        s.connect((target, 8501))
        s.sendall(b"%010d" % size + bytes(size))
        print(s.recv(3).decode())
except OSError as error: print(type(error).__name__)
"""


def test_no_account_pours_more_into_the_agent_than_a_question_takes(segment: Segment, tmp_path: Path) -> None:
    """Four requests of 100 MB, without a token, took a gigabyte on each of three servers, and one lost its lead."""
    agent, database, nobody = 970, 971, 65534
    segment.load(script(0, agent=agent, database=database), tmp_path / "filter")
    # Who listens here is root, who is not to be asked about in this test.
    segment.run("node", "nft", "flush", "chain", "inet", "patroni_node", "answer_agent")
    listening = segment.popen("node", _AGENT)
    assert listening.stdin and listening.stdout and listening.stdout.readline() == "ready\n"

    def pour(account: int, size: int, source: str = "127.0.0.1", target: str = "127.0.0.1") -> str:
        return segment.run("node", sys.executable, "-c", _POUR, str(account), source, target, str(size)).strip()

    try:
        for account in (0, agent, database):
            assert pour(account, 2_000_000, "127.0.0.9") == "all"
        # Each connection has a quota of its own, also from one port.
        for _ in range(3):
            assert pour(nobody, 150_000) == "all"
        assert pour(nobody, 2_000_000) in ("ConnectionResetError", "BrokenPipeError")
        assert pour(nobody, 1, "127.0.0.9") == "ConnectionRefusedError"
        # Or a SYN from the same port to another place would let the first connection begin anew.
        before = segment.refused()
        assert pour(nobody, 1, "127.0.0.1", "127.0.0.9") == "ConnectionRefusedError"
        assert segment.refused() == before + 1
        assert pour(nobody, 1) == "all"
    finally:
        listening.kill()
        listening.wait()
        listening.stdin.close()
        listening.stdout.close()


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
