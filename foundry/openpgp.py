"""Public keys as packets (RFC 4880), for what gpg cannot be asked: which of them is whose.

`gpg --export FINGERPRINT` also gives each key that has that one as a subkey, and anybody can make such a key: what does
not sign needs no consent. So who believes what gpg gives for a fingerprint believes strangers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

_PUBLIC = 6


def blocks(data: bytes) -> dict[str, bytes]:
    """The keys in what `gpg --export` has written, each with its fingerprint. Raises ValueError for anything else."""
    found: dict[str, bytes] = {}
    name, at = "", 0
    while at < len(data):
        tag, start, end = _packet(data, at)
        if tag == _PUBLIC:
            name = _fingerprint(data[start:end])
        elif not name:
            raise ValueError("it does not begin with a public key")
        found[name] = found.get(name, b"") + data[at:end]
        at = end
    return found


def only(data: bytes, fingerprints: Iterable[str]) -> bytes:
    """What `gpg --export` has written, without all keys but these. Raises ValueError for anything else."""
    found = blocks(data)
    return b"".join(found[name] for name in fingerprints if name in found)


def armored(data: bytes) -> str:
    """Public keys as people pass them on, as `gpg --armor --export` writes it (section 6)."""
    text = base64.b64encode(data).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    check = base64.b64encode(_crc24(data).to_bytes(3)).decode()
    kind = "PGP PUBLIC KEY BLOCK-----"
    return "\n".join([f"-----BEGIN {kind}", "", *lines, f"={check}", f"-----END {kind}", ""])


def _packet(data: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the packet that begins somewhere, and where its contents begin and end (section 4.2)."""
    head, first = data[at], int.from_bytes(data[at + 1 : at + 2])
    if head & 0xC0 == 0xC0:
        tag, size = head & 0x3F, 1 if first < 192 else 2 if first < 224 else 5 if first == 255 else 0
    else:
        tag, size = head >> 2 & 0x0F, (1, 2, 4, 0)[head & 3]
    start = at + 1 + size
    length = int.from_bytes(data[at + 1 : start])
    if head & 0xC0 == 0xC0 and size > 1:
        length = length - (192 << 8) + 192 if size == 2 else length & 0xFFFFFFFF
    if not head & 0x80 or not size or start + length > len(data):
        raise ValueError("it has other packets than gpg writes of keys")
    return tag, start, start + length


def _fingerprint(body: bytes) -> str:
    """Of a public key (section 12.2); of version 5, GnuPG's own."""
    if body[:1] == b"\x05":
        return hashlib.sha256(b"\x9a" + len(body).to_bytes(4) + body).hexdigest().upper()
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2) + body, usedforsecurity=False).hexdigest().upper()


def _crc24(data: bytes) -> int:
    """Section 6.1, a byte at a time: strangers may have put a megabyte there."""
    found, table = 0xB704CE, [_crc24_of(byte << 16) for byte in range(256)]
    for byte in data:
        found = (found << 8 & 0xFFFFFF) ^ table[found >> 16 ^ byte]
    return found


def _crc24_of(value: int) -> int:
    for _ in range(8):
        value <<= 1
        if value & 0x1000000:
            value ^= 0x1864CFB
    return value
