"""One key in, every password of the cluster out; keys that everybody knows are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

MIN_LENGTH = 16
MIN_DISTINCT = 6

WELL_KNOWN_WORDS = (
    "admin", "changeit", "changeme", "consul", "default", "example", "foundry", "letmein", "master", "passw0rd",
    "password", "patroni", "pgpass", "postgres", "postgresql", "qwerty", "qwertyuiop", "asdfghjkl", "replica",
    "replication", "replicator", "rewind", "root", "secret", "superuser", "test", "user", "welcome", "zxcvbnm",
    "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnop", "abcdef", "my", "the", "key", "pass",
)  # fmt: skip

EXAMPLE_KEYS = (
    "replace-with-a-long-random-key",
    "<at least 16 chars>",
    "at least 16 characters",
    "correct horse battery staple",
)

_WORDS = re.compile(r"(?:{}|\d)+".format("|".join(sorted(WELL_KNOWN_WORDS, key=len, reverse=True))))

GENERATE = "make one with `openssl rand -base64 24`"


@dataclass(frozen=True)
class Secrets:
    """The cluster's credentials; their repr shows none of them."""

    superuser: str = field(repr=False)
    replication: str = field(repr=False)
    rewind: str = field(repr=False)
    restapi: str = field(repr=False)
    gossip: str = field(repr=False)


def hkdf_sha256(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Derive key material as RFC 5869 says: HKDF-Extract (section 2.2), then HKDF-Expand (section 2.3).

    Args:
        key: input keying material (IKM).
        salt: may be empty, which section 2.2 defines as HashLen zeros.
        info: what the output is for; different info gives independent output.
        length: bytes wanted, at most 255 * HashLen (section 2.3).

    Returns:
        `length` bytes.

    Raises:
        ValueError: when length is out of range.
    """
    size = hashlib.sha256().digest_size
    if not 0 < length <= 255 * size:
        raise ValueError(f"HKDF-SHA256 gives 1 to {255 * size} bytes, not {length}")
    pseudorandom_key = hmac.digest(salt or bytes(size), key, "sha256")
    output = block = b""
    counter = 0
    while len(output) < length:
        counter += 1
        block = hmac.digest(pseudorandom_key, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def derive(key: str, cluster: str) -> Secrets:
    """Return the credentials that every node with this key and cluster name derives alike.

    Passwords are 24 bytes as 32 characters of base64url; Consul's gossip key is 32 bytes as base64
    (Consul's `encrypt`). The cluster's name is the salt, so one key used twice gives two sets.
    """

    def material(purpose: str, length: int) -> bytes:
        info = f"patroni-node/1/{purpose}".encode()
        return hkdf_sha256(key.encode(), cluster.encode(), info, length)

    def password(purpose: str) -> str:
        return base64.urlsafe_b64encode(material(purpose, 24)).decode()

    return Secrets(
        superuser=password("superuser"),
        replication=password("replication"),
        rewind=password("rewind"),
        restapi=password("restapi"),
        gossip=base64.b64encode(material("consul-gossip", 32)).decode(),
    )


def is_well_known(text: str) -> bool:
    """Tell whether text is only words and digits that every attacker tries first."""
    folded = text.strip().casefold()
    return folded in EXAMPLE_KEYS or _WORDS.fullmatch(re.sub(r"[\W_]", "", folded)) is not None


def weakness(key: str) -> str | None:
    """Return why a key is refused (never quoting it), or None for a good one."""
    if len(key.strip()) < MIN_LENGTH:
        return f"is too short: at least {MIN_LENGTH} characters; {GENERATE}"
    if is_well_known(key):
        return f"is a well-known or example value: {GENERATE}"
    if len(set(key)) < MIN_DISTINCT:
        return f"repeats fewer than {MIN_DISTINCT} different characters: {GENERATE}"
    return None
