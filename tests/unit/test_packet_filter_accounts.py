"""What accounts on the node itself may send and answer: packets of theirs, against the filter that nft has loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.segment import EVERYBODY, FAMILIES, FRIENDS, NODE, STRANGER, Segment, script

pytestmark = [
    pytest.mark.real_process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces"),
]


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
