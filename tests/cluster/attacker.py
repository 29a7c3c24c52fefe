"""A stranger's tools: Consul's RPC, Raft and gossip, Patroni's REST API and PostgreSQL, without a client of theirs.

It imports nothing of ours, so that a node's own python3 runs it as any account: `python3 - WHAT`, where WHAT is a JSON
object of functions and their arguments. An attempt whose answer begins with `IN` got in.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SECONDS = 3.0
PLAIN, RAFT, TLS, MULTIPLEX, SNAPSHOT, INSECURE = 0, 1, 3, 4, 5, 7
"""The first byte of a connection to Consul's 8300 (agent/pool/conn.go)."""
KEY_VALUE = 2
"""What an entry of Raft is that changes a key (agent/structs/structs.go, KVSRequestType)."""
ALIVE, PUSH_PULL = 4, 6
"""Messages of gossip (memberlist, net.go)."""


def pack(value: Any) -> bytes:
    """MessagePack, as far as Consul's requests need it."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, str | bytes):
        # Go's codec of that time knows raw bytes only.
        raw = value.encode() if isinstance(value, str) else value
        return b"\xdb" + struct.pack(">I", len(raw)) + raw
    if isinstance(value, Mapping):
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))


def unpack(read: Callable[[int], bytes]) -> Any:
    """One value of MessagePack; texts as bytes."""

    def number(form: str) -> Any:
        return struct.unpack(">" + form, read(struct.calcsize(form)))[0]

    kind = read(1)[0]
    if kind < 0x80 or kind >= 0xE0:
        return kind if kind < 0x80 else kind - 256
    if kind in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[kind]
    if 0xCA <= kind <= 0xD3:
        return number("fdBHIQbhiq"[kind - 0xCA])
    if 0xA0 <= kind < 0xC0:
        return read(kind & 31)
    sizes = {
        0xD9: "B",
        0xDA: "H",
        0xDB: "I",
        0xC4: "B",
        0xC5: "H",
        0xC6: "I",
        0xDC: "H",
        0xDD: "I",
        0xDE: "H",
        0xDF: "I",
    }
    size = number(sizes[kind]) if kind in sizes else kind & 15
    if kind in (0xDC, 0xDD) or 0x90 <= kind < 0xA0:
        return [unpack(read) for _ in range(size)]
    if kind in (0xDE, 0xDF) or 0x80 <= kind < 0x90:
        return {_text(unpack(read)): unpack(read) for _ in range(size)}
    return read(size)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Wire:
    """A connection; reading from one that the other side has closed raises ConnectionError."""

    def __init__(self, host: str, port: int, begin: bytes = b"") -> None:
        self.socket: socket.socket = socket.create_connection((host, port), timeout=SECONDS)
        self.socket.sendall(begin)

    def secure(self, pair: Sequence[str] | None, alpn: str = "") -> bytes:
        """Go on in TLS, believing anybody; pair: files of a certificate and its key. Returns who answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if pair:
            context.load_cert_chain(*pair)
        if alpn:
            context.set_alpn_protocols([alpn])
        inside = context.wrap_socket(self.socket)
        self.socket = inside
        return inside.getpeercert(binary_form=True) or b""

    def send(self, *parts: Any) -> None:
        self.socket.sendall(b"".join(part if isinstance(part, bytes) else pack(part) for part in parts))

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.socket.recv(size - len(found))
            if not more:
                raise ConnectionError("closed")
            found += more
        return found

    def value(self) -> Any:
        return unpack(self.read)


class Stream(Wire):
    """The first stream of a multiplexed connection (yamux, spec.md)."""

    def __init__(self, below: Wire) -> None:
        self.below = below
        self._left = b""
        below.send(struct.pack(">BBHII", 0, 1, 1, 1, 0))

    def send(self, *parts: Any) -> None:
        data = b"".join(part if isinstance(part, bytes) else pack(part) for part in parts)
        self.below.send(struct.pack(">BBHII", 0, 0, 0, 1, len(data)), data)

    def read(self, size: int) -> bytes:
        while len(self._left) < size:
            _, kind, flags, _, length = struct.unpack(">BBHII", self.below.read(12))
            if flags & 12:
                raise ConnectionError("closed")
            self._left += self.below.read(length) if kind == 0 else b""
        found, self._left = self._left[:size], self._left[size:]
        return found


def ask(wire: Wire, method: str, body: Mapping[str, Any]) -> Any:
    """Call one of Consul's methods (net/rpc). Raises PermissionError with what it says where it refuses."""
    wire.send({"ServiceMethod": method, "Seq": 1}, {"Datacenter": "dc1", **body})
    header = wire.value()
    answer = wire.value()
    if header["Error"]:
        raise PermissionError(_text(header["Error"]))
    return answer


def read_key(wire: Wire, key: str) -> str:
    found = ask(wire, "KVS.Get", {"Key": key, "AllowStale": True, "Token": ""})
    return f"IN: {len(found['Entries'][0]['Value'])} bytes of {key}"


def write_key(wire: Wire, key: str, value: str) -> str:
    ask(wire, "KVS.Apply", _set(key, value))
    return f"IN: {key} is written"


def _set(key: str, value: str) -> dict[str, Any]:
    return {"Datacenter": "dc1", "Op": "set", "DirEnt": {"Key": key, "Value": value}, "Token": ""}


def forge_vote(wire: Wire) -> str:
    """Ask for a vote in a term that lies long ago, which changes nothing."""
    wire.send(bytes([1]), {"ProtocolVersion": 3, "Term": 0, "Candidate": "x", "LastLogIndex": 0, "LastLogTerm": 0})
    wire.value()
    return f"IN: Raft answers {wire.value()}"


def forge_entry(wire: Wire, key: str, value: str, where: tuple[int, int] | None) -> str:
    """Append an entry to Raft's log as if a leader did. where: index and term; None asks for the last one first."""

    def append(term: int, before: tuple[int, int], entries: list[Any]) -> Any:
        commit = before[0] + len(entries) if entries else 0
        head = {"ProtocolVersion": 3, "Term": term, "Leader": "127.0.0.9:8300", "LeaderCommitIndex": commit}
        wire.send(bytes([0]), {**head, "PrevLogEntry": before[0], "PrevLogTerm": before[1], "Entries": entries})
        wire.value()
        return wire.value()

    # The last entry's term is the present one but for elections that left no entry.
    seen = append(0, (0, 0), [])
    last, term = where or (seen["LastLog"], seen["Term"])
    data = bytes([KEY_VALUE]) + pack(_set(key, value))
    entry = {"Index": last + 1, "Term": term + 1, "Type": 0, "Data": data, "Extensions": None}
    answer = append(term + 1, (last, term), [entry])
    return f"IN: an entry in Raft's log: {answer}" if answer["Success"] else f"refused: {answer}"


def take_snapshot(wire: Wire) -> str:
    wire.send({"Datacenter": "dc1", "Token": "", "AllowStale": True, "Op": 0})
    answer = wire.value()
    return f"refused: {_text(answer['Error'])}" if answer["Error"] else "IN: a snapshot of everything"


def sign_me(host: str, method: str) -> str:
    """What an agent asks for that has no certificate yet, where TLS asks for none."""
    wire = Wire(host, 8300, bytes([INSECURE]))
    wire.secure(None)
    return f"IN: {ask(wire, method, {'CSR': '', 'Node': 'stranger'})}"


def gossip_stream(host: str) -> str:
    """A member's state without the key: who answers with its own took it."""
    wire = Wire(host, 8301)
    node = {"Name": "stranger", "Addr": bytes(4), "Port": 8301, "Meta": b"", "Incarnation": 1, "State": 0}
    wire.send(
        bytes([PUSH_PULL]), {"Nodes": 1, "UserStateLen": 0, "Join": True}, {**node, "Vsn": bytes([1, 5, 2, 2, 5, 4])}
    )
    kind = wire.read(1)[0]
    if kind != PUSH_PULL:
        return f"refused: message {kind}"
    return f"IN: gossip answers {wire.value()}"


def gossip_packet(host: str) -> str:
    """Nothing answers: whether it got in is in the list of members."""
    node = {"Incarnation": 1, "Node": "stranger", "Addr": socket.inet_aton("10.129.0.66"), "Port": 8301, "Meta": b""}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(bytes([ALIVE]) + pack({**node, "Vsn": bytes([1, 5, 2, 2, 5, 4])}), (host, 8301))
    return "sent"


def request(
    host: str,
    port: int,
    method: str,
    path: str,
    body: str | None = None,
    headers: Mapping[str, str] = {},
    tls: Any = None,
) -> str:
    """HTTP. tls: None for http, else files of a certificate and its key, or nothing. IN where it answers with 2xx."""
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if tls:
            context.load_cert_chain(*tls)
        connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    text = answer.read(300).decode(errors="replace").strip()
    # An empty list of Consul's is what is left where nothing may be seen.
    inside = answer.status < 300 and text not in ("[]", "{}", "null")
    return f"{'IN' if inside else 'refused'}: {answer.status} {text[:120]}"


def postgresql(host: str, tls: Sequence[str] | None) -> str:
    """How far a connection comes. tls: None for none, else files of a certificate and its key, or nothing."""
    wire = Wire(host, 5432)
    if tls is not None:
        wire.send(struct.pack(">II", 8, 80877103))
        if wire.read(1) != b"S":
            return "refused: no TLS"
        wire.secure(tls)
    words = b"user\0postgres\0database\0postgres\0\0"
    wire.send(struct.pack(">II", 8 + len(words), 3 << 16) + words)
    kind = wire.read(1)
    (length,) = struct.unpack(">I", wire.read(4))
    said = wire.read(length - 4)
    return f"IN: asks for {said[4:20]!r}" if kind == b"R" else f"refused: {said.decode(errors='replace')[:150]}"


def certificates(host: str) -> dict[str, str]:
    """The digest of the certificate that is shown at each port; "" where its server is being started anew."""
    return {str(port): _shown(host, port) for port in (5432, 8008, 8300)}


def _shown(host: str, port: int) -> str:
    with contextlib.suppress(ConnectionResetError):
        wire = Wire(host, port, {8300: bytes([TLS]), 5432: struct.pack(">II", 8, 80877103)}.get(port, b""))
        wire.read(1 if port == 5432 else 0)
        return hashlib.sha256(wire.secure(None)).hexdigest()
    return ""


def doors(host: str, pairs: Mapping[str, Sequence[str]]) -> dict[str, Callable[[], Wire]]:
    """Ways to Consul's methods: in plain, multiplexed, and in TLS with nothing, with each of the pairs."""

    def tls(pair: Sequence[str] | None, first: int = PLAIN, alpn: str = "") -> Wire:
        wire = Wire(host, 8300, b"" if alpn else bytes([TLS]))
        wire.secure(pair, alpn)
        wire.send(b"" if alpn else bytes([first]))
        return wire

    found: dict[str, Callable[[], Wire]] = {
        "plain": lambda: Wire(host, 8300, bytes([PLAIN])),
        "multiplexed": lambda: Stream(Wire(host, 8300, bytes([MULTIPLEX]))),
    }
    for name, pair in {"no certificate": None, **pairs}.items():
        found[f"TLS, {name}"] = lambda pair=pair: tls(pair)
        found[f"native TLS, {name}"] = lambda pair=pair: tls(pair, alpn="consul/rpc-single")
    return found


def other_doors(host: str, pairs: Mapping[str, Sequence[str]], first: int) -> dict[str, Callable[[], Wire]]:
    """Ways to what is none of Consul's methods: Raft, snapshots. first: their first byte."""

    def tls(pair: Sequence[str] | None) -> Wire:
        wire = Wire(host, 8300, bytes([TLS]))
        wire.secure(pair)
        wire.send(bytes([first]))
        return wire

    found: dict[str, Callable[[], Wire]] = {"plain": lambda: Wire(host, 8300, bytes([first]))}
    for name, pair in {"no certificate": None, **pairs}.items():
        found[f"TLS, {name}"] = lambda pair=pair: tls(pair)
    return found


def attempt(work: Callable[[], str]) -> str:
    try:
        return work()
    except (OSError, http.client.HTTPException, KeyError, IndexError, TypeError) as error:
        return f"refused: {type(error).__name__} {error}"[:200]


def store(hosts: Sequence[str], pairs: Mapping[str, Sequence[str]], key: str, payload: str) -> dict[str, str]:
    """Try all of Consul's ports, from wherever this runs.

    Args:
        hosts: addresses of nodes.
        pairs: files of a certificate and its key, by a name.
        key: what is read and written.
        payload: what is written; %s becomes the attempt's name.
    """
    found: dict[str, Callable[[], str]] = {}
    for host in hosts:
        for name, door in doors(host, pairs).items():
            mark = payload % "-".join(name.replace(",", "").split())
            found[f"{host} read, {name}"] = lambda door=door: read_key(door(), key)
            found[f"{host} write, {name}"] = lambda door=door, mark=mark: write_key(door(), key, mark)
        for name, door in other_doors(host, pairs, RAFT).items():
            found[f"{host} vote, {name}"] = lambda door=door: forge_vote(door())
        for name, door in other_doors(host, pairs, SNAPSHOT).items():
            found[f"{host} snapshot, {name}"] = lambda door=door: take_snapshot(door())
        for method in ("AutoEncrypt.Sign", "AutoConfig.InitialConfiguration"):
            found[f"{host} {method}"] = lambda host=host, method=method: sign_me(host, method)
        found[f"{host} gossip, TCP"] = lambda host=host: gossip_stream(host)
        found[f"{host} gossip, UDP"] = lambda host=host: gossip_packet(host)
    return {name: attempt(work) for name, work in found.items()}


def raft(hosts: Sequence[str], pairs: Mapping[str, Sequence[str]], key: str, payload: str) -> dict[str, str]:
    """Append one entry to the log of all servers, as their leader does. Arguments: as of store."""
    found: dict[str, str] = {}
    for name in other_doors(hosts[0], pairs, RAFT):
        where: tuple[int, int] | None = None
        value = payload % ("raft-" + "-".join(name.replace(",", "").split()))
        for host in hosts:

            def work(host: str = host, name: str = name, where: Any = where, value: str = value) -> str:
                return forge_entry(other_doors(host, pairs, RAFT)[name](), key, value, where)

            found[f"{host} append, {name}"] = attempt(work)
    return found


def requests(wanted: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Try requests by HTTP: the arguments of request, and a name."""
    return {
        str(one["name"]): attempt(lambda one=one: request(**{k: v for k, v in one.items() if k != "name"}))
        for one in wanted
    }


def connections(wanted: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Try connections to PostgreSQL: the arguments of postgresql, and a name."""
    return {str(one["name"]): attempt(lambda one=one: postgresql(one["host"], one["tls"])) for one in wanted}


def read_files(paths: Sequence[str]) -> dict[str, str]:
    def work(path: str) -> str:
        with open(path, "rb") as stream:
            return f"IN: {len(stream.read())} bytes"

    return {path: attempt(lambda path=path: work(path)) for path in paths}


def resolve(name: str) -> str:
    """An address, as Consul's DNS gives it to everybody; nothing where it gives none."""
    words = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(SECONDS)
        udp.sendto(struct.pack(">6H", 1, 256, 1, 0, 0, 0) + words + struct.pack(">BHH", 0, 1, 1), ("127.0.0.1", 8600))
        answer = udp.recv(512)
    return socket.inet_ntoa(answer[-4:]) if struct.unpack(">H", answer[6:8])[0] else ""


if __name__ == "__main__":
    _tools: tuple[Callable[..., Any], ...] = (
        store, raft, requests, connections, read_files, resolve, certificates
    )  # fmt: skip
    _named = {tool.__name__: tool for tool in _tools}
    print(json.dumps({name: _named[name](**options) for name, options in json.loads(sys.argv[1]).items()}))
