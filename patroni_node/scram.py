"""Whether a PostgreSQL server knows a password, by SCRAM-SHA-256 (RFC 5802, RFC 7677), trusting it with nothing.

SCRAM proves in both directions. The server is told nothing of the password, and what it answers at the end can be made
only by who knows the verifier of this password or the password itself.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import re
import secrets
import select
import socket
import ssl
import stringprep
import struct
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

MECHANISM = "SCRAM-SHA-256"
BOUND_MECHANISM = "SCRAM-SHA-256-PLUS"

MIN_ITERATIONS = 4096
"""PostgreSQL's own. Fewer would let a stranger who asks for them try passwords out at a price that he sets himself."""
MAX_ITERATIONS = 1_000_000

MAX_MESSAGE = 16 * 1024
MAX_GREETINGS = 64

_PROTOCOL = 3 << 16
_SSL_REQUEST = (1234 << 16) | 5679
_AUTH_SASL, _AUTH_CONTINUE, _AUTH_FINAL = 10, 11, 12

# What a server says that starts, stops or is full, before it asks for anything: no answer to the question yet.
_NOT_NOW = (b"57P01", b"57P02", b"57P03", b"53300")

# Signatures whose hash is the one of tls-server-end-point (RFC 5929, section 4.1); MD5 and SHA-1 are raised to SHA-256.
_END_POINT = {
    bytes.fromhex("2a864886f70d010104"): "sha256",
    bytes.fromhex("2a864886f70d010105"): "sha256",
    bytes.fromhex("2a864886f70d01010b"): "sha256",
    bytes.fromhex("2a864886f70d01010c"): "sha384",
    bytes.fromhex("2a864886f70d01010d"): "sha512",
    bytes.fromhex("2a8648ce3d0401"): "sha256",
    bytes.fromhex("2a8648ce3d040302"): "sha256",
    bytes.fromhex("2a8648ce3d040303"): "sha384",
    bytes.fromhex("2a8648ce3d040304"): "sha512",
}

Result = TypeVar("Result")


class _UnprovedError(Exception):
    """The other side answered with something that proves nothing."""


class _SilentError(Exception):
    """Nobody answers, or not now, or not to the end."""


def proves_password(
    host: str, port: int, user: str, password: str, timeout: float, *, database: str | None = None
) -> bool | None:
    """Tell whether a PostgreSQL server proves that it knows a user's password.

    TLS is used where the server has it, and its certificate is not looked at: the proof is SCRAM's. Who stands in
    between can relay everything, and has then shown that a server which knows the password is behind him, which is
    what was asked. What he must not get is the session that follows, so the proof is bound to the certificate that
    was seen here (SCRAM-SHA-256-PLUS): the real server refuses it where he shows one of his own, or hides that
    the server can do this. Without TLS he can have that session, as he can have everybody else's; `hostssl` ends it.

    Args:
        host: an address.
        port: where the server listens.
        user: whose password.
        password: the password; a server that does not know it learns nothing but the right to guess it offline.
        timeout: seconds for all of it, beside at most MAX_ITERATIONS of hashing.
        database: which to ask for; None is a connection for replication, which needs no database to be open.

    Returns:
        True when it proved it. False when it answered and did not: another password, another way to ask
        (also `trust`), or no PostgreSQL. None when nobody answered in time or a server said that it is starting,
        stopping or full, so that asking again may help.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((host, port), timeout=max(timeout, 0.001)) as plain:
            plain.setblocking(False)
            with contextlib.closing(_Wire(plain, deadline)) as wire:
                wire.secure()
                _start(wire, user, database)
                _authenticate(wire, password)
                _leave(wire)
    except _UnprovedError:
        return False
    except (_SilentError, OSError):
        return None
    return True


class _Wire:
    """Messages of PostgreSQL's protocol, each wait bounded by one deadline, each length by MAX_MESSAGE."""

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._socket: socket.socket = plain
        self._deadline = deadline
        self.certificate: bytes | None = None

    def close(self) -> None:
        self._socket.close()

    def secure(self) -> None:
        """Go on inside TLS where the server has it."""
        self.write(struct.pack("!ii", 8, _SSL_REQUEST))
        answer = self._exactly(1)
        if answer == b"N":
            return
        if answer != b"S":
            raise _UnprovedError
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        inside = context.wrap_socket(self._socket, do_handshake_on_connect=False)
        self._socket = inside
        self._wait(inside.do_handshake)
        self.certificate = inside.getpeercert(binary_form=True)

    def hurry(self, seconds: float) -> None:
        """Wait no longer than so many seconds from now on."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._wait(partial(self._socket.send, left)) :]

    def send(self, kind: bytes, body: bytes) -> None:
        self.write(kind + struct.pack("!i", len(body) + 4) + body)

    def receive(self) -> tuple[bytes, bytes]:
        kind = self._exactly(1)
        (length,) = struct.unpack("!i", self._exactly(4))
        if not 4 <= length <= MAX_MESSAGE:
            raise _UnprovedError
        return kind, self._exactly(length - 4)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self._wait(partial(self._socket.recv, size - len(found)))
            if not more:
                # It took the connection and hung up: an answer, but none that proves anything.
                raise _UnprovedError
            found += more
        return found

    def _wait(self, attempt: Callable[[], Result]) -> Result:
        while True:
            try:
                return attempt()
            except (BlockingIOError, ssl.SSLWantReadError):
                ready: tuple[list[socket.socket], list[socket.socket]] = ([self._socket], [])
            except ssl.SSLWantWriteError:
                ready = ([], [self._socket])
            except (ssl.SSLError, ConnectionError, ValueError) as error:
                raise _UnprovedError from error
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise _SilentError
            select.select(*ready, [], left)


def _start(wire: _Wire, user: str, database: str | None) -> None:
    parameters = {"user": user} | ({"replication": "true"} if database is None else {"database": database})
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    wire.write(struct.pack("!ii", len(body) + 8, _PROTOCOL) + body)


def _authenticate(wire: _Wire, password: str) -> None:
    offered = _request(wire, _AUTH_SASL).split(b"\0")
    binding = _end_point(wire.certificate)
    if binding is not None and BOUND_MECHANISM.encode() in offered:
        mechanism, header = BOUND_MECHANISM, "p=tls-server-end-point,,"
    else:
        # "y" says that this side could have bound it: a server that can as well then knows that somebody hid it.
        mechanism, header = MECHANISM, "n,," if binding is None else "y,,"
        binding = b""
    if mechanism.encode() not in offered:
        raise _UnprovedError
    exchange = Exchange(password, header, binding or b"", base64.b64encode(secrets.token_bytes(18)).decode())
    first = exchange.first().encode()
    wire.send(b"p", mechanism.encode() + b"\0" + struct.pack("!i", len(first)) + first)
    wire.send(b"p", exchange.proof(_text(_request(wire, _AUTH_CONTINUE))).encode())
    if not exchange.is_proved(_text(_request(wire, _AUTH_FINAL))):
        raise _UnprovedError


def _leave(wire: _Wire) -> None:
    """Go as clients do who were let in, so that the server's log tells of no broken connection."""
    wire.hurry(1.0)
    with contextlib.suppress(_UnprovedError, _SilentError, OSError):
        for _ in range(MAX_GREETINGS):
            kind, _body = wire.receive()
            if kind in (b"Z", b"E"):
                break
        wire.send(b"X", b"")


def _request(wire: _Wire, wanted: int) -> bytes:
    kind, body = wire.receive()
    if kind == b"E" and any(field[:1] == b"C" and field[1:] in _NOT_NOW for field in body.split(b"\0")):
        raise _SilentError
    if kind != b"R" or len(body) < 4 or struct.unpack("!i", body[:4])[0] != wanted:
        raise _UnprovedError
    return body[4:]


def _text(body: bytes) -> str:
    try:
        return body.decode("ascii")
    except UnicodeDecodeError as error:
        raise _UnprovedError from error


@dataclass
class Exchange:
    """The client's half of SCRAM-SHA-256.

    password: as it was given. header: GS2's, which says how the channel is bound. binding: what binds it.
    nonce: printable, drawn anew for each exchange. user: PostgreSQL takes it from the startup message instead.
    """

    password: str
    header: str
    binding: bytes
    nonce: str
    user: str = ""
    _signature: bytes = b""

    def first(self) -> str:
        return f"{self.header}{self._bare()}"

    def _bare(self) -> str:
        return f"n={self.user},r={self.nonce}"

    def proof(self, challenge: str) -> str:
        """Return the client's last message.

        Raises:
            _UnprovedError: when the challenge is none, or asks for too little or too much work.
        """
        found = re.fullmatch(r"r=([!-+\--~]+),s=([A-Za-z0-9+/]+=*),i=([1-9][0-9]{0,9})", challenge)
        if found is None or not found[1].startswith(self.nonce) or found[1] == self.nonce:
            raise _UnprovedError
        iterations = int(found[3])
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise _UnprovedError
        salted = hashlib.pbkdf2_hmac("sha256", _prepared(self.password), _decoded(found[2]), iterations)
        channel = base64.b64encode(self.header.encode() + self.binding).decode()
        unproved = f"c={channel},r={found[1]}"
        message = f"{self._bare()},{challenge},{unproved}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        client_signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, client_signature, strict=True))
        return f"{unproved},p={base64.b64encode(proof).decode()}"

    def is_proved(self, final: str) -> bool:
        """Tell whether the server's last message can only be of one who knows the password's verifier."""
        if not self._signature or not final.startswith("v="):
            return False
        return hmac.compare_digest(_decoded(final[2:]), self._signature)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _UnprovedError from error


def _prepared(password: str) -> bytes:
    """Return a password as PostgreSQL hashes it: by SASLprep (RFC 4013), or as it is where that forbids it."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    forbidden = (
        stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
        stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
        stringprep.in_table_c9, stringprep.in_table_a1,
    )  # fmt: skip
    if not prepared or any(table(char) for char in prepared for table in forbidden) or _mixes_directions(prepared):
        return password.encode()
    return prepared.encode()


def _mixes_directions(text: str) -> bool:
    right = [stringprep.in_table_d1(char) for char in text]
    return any(right) and (any(map(stringprep.in_table_d2, text)) or not (right[0] and right[-1]))


def _end_point(certificate: bytes | None) -> bytes | None:
    """Return the hash of a certificate that both ends of a connection know, or None where its signature names none."""
    if certificate is None:
        return None
    try:
        inside, _ = _der(certificate)
        _, algorithm = _der(inside)
        oid, _ = _der(_der(algorithm)[0])
    except IndexError:
        return None
    name = _END_POINT.get(oid)
    return None if name is None else hashlib.new(name, certificate).digest()


def _der(data: bytes) -> tuple[bytes, bytes]:
    """Split what begins with one DER value into what that holds and what comes after it."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[start : start + length], data[start + length :]
