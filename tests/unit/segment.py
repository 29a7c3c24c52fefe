"""A node, a neighbour and a stranger on one segment: network namespaces that end with the process that holds them."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patroni_node.network import Network, own_network
from patroni_node.packet_filter import ruleset

NODE, FRIEND, STRANGER = (
    ("10.129.0.21", "fd00:129::21"),
    ("10.129.0.22", "fd00:129::22"),
    ("10.129.0.66", "fd00:129::66"),
)
HOSTS = {"node": NODE, "friend": FRIEND, "stranger": STRANGER}
TCP = (22, 5432, 8008, 8300, 8301, 8302, 8500, 8502, 8600)
LOADER = Path(__file__).resolve().parents[2] / "files/usr/libexec/patroni-node/packet-filter"
UDP = (53, 8301, 8302, 8600)
FRIENDS = [own_network(ipaddress.ip_address(text)) for text in FRIEND]
EVERYBODY: list[Network] = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])

_LISTEN = f"""
import json, select, socket, sys
def bound(kind, port):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", port))
    return s
udp = [bound(socket.SOCK_DGRAM, port) for port in {UDP}]
tcp = [bound(socket.SOCK_STREAM, port) for port in {TCP}]
for s in tcp: s.listen(64)
open_ = []
print("ready", flush=True)
while True:
    for s in select.select(udp + tcp + open_, [], [])[0]:
        if s in udp:
            data, source = s.recvfrom(100)
            print(json.dumps([data.decode(), source[0]]), flush=True)
        elif s in tcp:
            open_.append(s.accept()[0])
            open_[-1].sendall(b"hello")
        else:
            data = s.recv(100)
            if data: s.sendall(data)
            else: open_.remove(s)
"""

# Each port with what came of it. A packet that is dropped is one that has no answer.
_ASK = """
import json, socket, sys
target, ports = sys.argv[1], json.loads(sys.argv[2])
found = {}
for port in ports:
    try:
        with socket.create_connection((target, port), 3) as s:
            s.settimeout(3)
            found[port] = s.recv(5).decode()
    except OSError as error:
        found[port] = type(error).__name__
print(json.dumps(found))
"""

_SEND = """
import socket, sys
target, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
kind = socket.AF_INET6 if ":" in target else socket.AF_INET
socket.socket(kind, socket.SOCK_DGRAM).sendto(text.encode(), (target, port))
"""

# A source of one's own choice, which raw sockets allow: IP_HDRINCL, and IPV6_HDRINCL (36).
_FORGE = """
import os, socket, struct, sys
source, target, port, text, proto = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode(), sys.argv[5]
six = ":" in target
kind = socket.AF_INET6 if six else socket.AF_INET
src, dst = socket.inet_pton(kind, source), socket.inet_pton(kind, target)
def total(data):
    data += b"\\0" * (len(data) % 2)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16: value = (value & 0xffff) + (value >> 16)
    return ~value & 0xffff
number = 17 if proto == "udp" else 6
if number == 17: head = struct.pack("!HHHH", 40000, port, 8 + len(text), 0)
else: head, text = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 64240, 0, 0), b""
at = 6 if number == 17 else 16
check = total(src + dst + struct.pack("!II", len(head + text), number) + head + text)
body = head[:at] + struct.pack("!H", check) + head[at + 2:] + text
out = socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW)
if six:
    out.setsockopt(socket.IPPROTO_IPV6, 36, 1)
    parts, first = [body], number
    if proto == "headers":
        # Options of nothing (PadN): a header that says that another one comes, which is in the second fragment.
        parts, first = [struct.pack("!BBBBI", 60, 0, 1, 4, 0), struct.pack("!BBBBI", 6, 0, 1, 4, 0) + body], 60
    elif proto == "fragments": parts = [body[:8], body[8:]]
    if len(parts) > 1:
        # The offset, in bytes, and whether more comes; a number of this packet's own.
        parts = [struct.pack("!BBHI", first, 0, at, os.getpid()) + part for at, part in zip((1, 8), parts)]
    for part in parts:
        header = struct.pack("!IHBB", 6 << 28, len(part), 44 if len(parts) > 1 else number, 64)
        out.sendto(header + src + dst + part, (target, 0))
else:
    out.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0) + src + dst
    out.sendto(header + body, (target, 0))
"""


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


class Segment:
    """Namespaces named node, friend and stranger, on a bridge; with listeners on the node."""

    def __init__(self) -> None:
        # It ends, and everything with it, when this process does: its standard input is closed then.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._listener: subprocess.Popen[str] | None = None
        try:
            assert self._holder.stdout and self._holder.stdout.readline() == b"\n"
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self._in("mkdir", "-p", "/run/netns")
        self._in("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        # What the tests write there is theirs alone.
        self._in("mount", "-t", "tmpfs", "tmpfs", "/var/lib")
        self._in("ip", "link", "add", "br0", "up", "type", "bridge", "mcast_snooping", "0")
        for name, (four, six) in HOSTS.items():
            self._in("ip", "netns", "add", name)
            self._in("ip", "link", "add", name, "up", "master", "br0", "type", "veth", "peer", "eth0", "netns", name)
            self.run(name, "ip", "link", "set", "lo", "up")
            self.run(name, "ip", "addr", "add", f"{four}/24", "dev", "eth0")
            self.run(name, "ip", "addr", "add", f"{six}/64", "dev", "eth0", "nodad")
            self.run(name, "ip", "link", "set", "eth0", "up")
        # As lax as a kernel can be told to be: what then holds is the filter.
        for setting in ("all.accept_local", "eth0.accept_local", "all.route_localnet", "eth0.route_localnet"):
            self.run("node", "sysctl", "-qw", f"net.ipv4.conf.{setting}=1")
        for setting in ("all.rp_filter", "eth0.rp_filter"):
            self.run("node", "sysctl", "-qw", f"net.ipv4.conf.{setting}=0")
        self._listener = subprocess.Popen(
            self._words("node", sys.executable, "-c", _LISTEN), stdout=subprocess.PIPE, text=True
        )
        assert self._listener.stdout and self._listener.stdout.readline() == "ready\n"

    def _words(self, name: str, *words: str) -> list[str]:
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "ip", "netns", "exec", name, *words]

    def _in(self, *words: str) -> None:
        subprocess.run(["nsenter", f"--target={self._holder.pid}", "--net", "--mount", *words], check=True, timeout=60)

    def run(self, name: str, *words: str) -> str:
        """Run a command in one of the three and return its output."""
        done = subprocess.run(self._words(name, *words), stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        return done.stdout

    def popen(self, name: str, program: str) -> subprocess.Popen[str]:
        """Start a Python program in one of the three, whose standard input and output are pipes."""
        words = self._words(name, sys.executable, "-c", program)
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def connect(self, name: str, target: str, ports: tuple[int, ...] = TCP) -> dict[int, str]:
        """What became of a connection to each port: "hello", or the name of the error."""
        found = json.loads(self.run(name, sys.executable, "-c", _ASK, target, json.dumps(ports)))
        return {int(port): what for port, what in found.items()}

    def send(self, name: str, target: str, port: int, text: str) -> None:
        self.run(name, sys.executable, "-c", _SEND, target, str(port), text)

    def forge(self, source: str, target: str, port: int, text: str, proto: str = "udp") -> None:
        """Send a packet of the stranger's with a source that is not its own."""
        self.run("stranger", sys.executable, "-c", _FORGE, source, target, str(port), text, proto)

    def segments(self) -> int:
        """How many segments of TCP the node has taken."""
        names, values = (row.split() for row in self.run("node", "grep", "^Tcp:", "/proc/net/snmp").splitlines())
        return int(values[names.index("InSegs")])

    def heard(self, target: str) -> list[str]:
        """All datagrams since the last call, in their order; the last one sent is this call's own, to an open port."""
        self.send("friend", target, 53, "end")
        found: list[str] = []
        assert self._listener and self._listener.stdout
        while (text := json.loads(self._listener.stdout.readline())[0]) != "end":
            found.append(text)
        return found

    def load_installed(self, text: str | None) -> tuple[int, str]:
        """Run what patroni-node.service ends with, where node.yml made this file (None: no file); code and stderr."""
        installed = "/var/lib/patroni-node/packet-filter.nft"
        self.run("node", "rm", "-f", installed)
        if text is not None:
            self.run("node", "mkdir", "-p", str(Path(installed).parent))
            subprocess.run(self._words("node", "tee", installed), input=text, text=True, stdout=subprocess.DEVNULL)
        done = subprocess.run(self._words("node", str(LOADER)), text=True, stderr=subprocess.PIPE, timeout=60)
        return done.returncode, done.stderr

    def load(self, script: str, path: Path) -> None:
        path.write_text(script)
        self.run("node", "nft", "-f", str(path))

    def refused(self) -> int:
        """How many packets the table has refused since it was loaded."""
        told: dict[str, Any] = json.loads(
            self.run("node", "nft", "-j", "list", "counters", "table", "inet", "patroni_node")
        )
        return next(int(entry["counter"]["packets"]) for entry in told["nftables"] if "counter" in entry)

    def close(self) -> None:
        for process in (self._listener, self._holder):
            if process is not None:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe:
                        pipe.close()
