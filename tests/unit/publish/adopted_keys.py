"""Keys whose subkeys are other people's: what anybody can make without a secret of theirs."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import time
from pathlib import Path

from tests.unit.publish.gpg_home import Home

_PUBLIC, _SUBKEY, _SIGNATURE = 6, 14, 2
_BINDING, _EDDSA, _SHA256 = 0x18, 22, 8


def adopted(home: Home, by: str, other: str) -> bytes:
    """The public key `by`, with the primary key `other` bound to it as a subkey: RFC 4880, sections 5.2.4 and 11.1.

    Only what signs has to agree (section 5.2.1, type 0x19), so this one says that it encrypts.
    """
    mine, theirs = (home.export(key, home.folder / f"{key}.adopted").read_bytes() for key in (by, other))
    first, second = _body(mine), _body(theirs)
    hashed = _subpacket(2, struct.pack("!I", int(time.time()))) + _subpacket(27, b"\x0c")
    hashed += _subpacket(33, b"\x04" + bytes.fromhex(by))
    head = struct.pack("!BBBBH", 4, _BINDING, _EDDSA, _SHA256, len(hashed)) + hashed
    framed = b"".join(struct.pack("!BH", 0x99, len(body)) + body for body in (first, second))
    digest = hashlib.sha256(framed + head + struct.pack("!BBI", 4, 0xFF, len(head))).digest()
    numbers = b"".join(_number(part) for part in _signed(home, by, digest))
    issuer = _subpacket(16, bytes.fromhex(by)[-8:])
    signature = head + struct.pack("!H", len(issuer)) + issuer + digest[:2] + numbers
    return mine + _packet(_SUBKEY, second) + _packet(_SIGNATURE, signature)


def _body(data: bytes) -> bytes:
    """The contents of the first packet: a public key of less than 256 bytes, as gpg writes it."""
    assert data[0] == 0x80 | _PUBLIC << 2
    return data[2 : 2 + data[1]]


def _packet(tag: int, body: bytes) -> bytes:
    return struct.pack("!BH", 0x80 | tag << 2 | 1, len(body)) + body


def _subpacket(kind: int, data: bytes) -> bytes:
    return bytes([len(data) + 1, kind]) + data


def _number(data: bytes) -> bytes:
    data = data.lstrip(b"\0")
    return struct.pack("!H", len(data) * 8 - 8 + data[0].bit_length()) + data


def _signed(home: Home, by: str, digest: bytes) -> tuple[bytes, bytes]:
    """The two numbers of an EdDSA signature, which gpg-agent makes of anything."""
    rows = home.gpg("--with-colons", "--with-keygrip", "--list-keys", by).splitlines()
    grip = next(row.split(":")[9] for row in rows if row.startswith("grp"))
    words = [f"SIGKEY {grip}", f"SETHASH --hash=sha256 {digest.hex()}", "PKSIGN", "/bye"]
    agent = ["gpg-connect-agent", "--homedir", str(home.folder)]
    answer = subprocess.run(agent, input="\n".join(words).encode(), capture_output=True, check=True).stdout
    data = next(row for row in answer.split(b"\n") if row.startswith(b"D "))[2:]
    plain = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), data)
    (r,), (s,) = (re.findall(name + rb"32:(.{32})", plain, re.DOTALL) for name in (rb"\(1:r", rb"\(1:s"))
    return r, s


def armored(home: Home, data: bytes) -> str:
    """It as people pass keys on."""
    path = Path(home.folder / "plain")
    path.write_bytes(data)
    return home.gpg("--output", "-", "--enarmor", str(path)).replace("PGP ARMORED FILE", "PGP PUBLIC KEY BLOCK")
