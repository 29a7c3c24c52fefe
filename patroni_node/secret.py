"""One key in, every password of the cluster out; what everybody knows is refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from patroni_node.sources import Reader, Source

KEY = "key"
PASSWORDS = ("superuser", "replication", "rewind", "restapi")
GOSSIP = "gossip"

MIN_LENGTH = 16
MIN_PASSWORD = 12
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
    """The cluster's credentials; their repr shows none of them.

    gossip: Consul's `encrypt`, None where its agents talk in the clear. consul_token, etcd: None where none is needed.
    """

    superuser: str = field(repr=False)
    replication: str = field(repr=False)
    rewind: str = field(repr=False)
    restapi: str = field(repr=False)
    gossip: str | None = field(default=None, repr=False)
    consul_token: str | None = field(default=None, repr=False)
    etcd: str | None = field(default=None, repr=False)


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


def derive(key: str, cluster: str) -> dict[str, str]:
    """Return the credentials that every node with this key and cluster name derives alike, by purpose.

    Passwords are 24 bytes as 32 characters of base64url; Consul's gossip key is 32 bytes as base64
    (Consul's `encrypt`). The cluster's name is the salt, so one key used twice gives two sets.
    """

    def material(purpose: str, length: int) -> bytes:
        info = f"patroni-node/1/{purpose}".encode()
        return hkdf_sha256(key.encode(), cluster.encode(), info, length)

    found = {name: base64.urlsafe_b64encode(material(name, 24)).decode() for name in PASSWORDS}
    return found | {GOSSIP: base64.b64encode(material("consul-gossip", 32)).decode()}


def collect(sources: Mapping[str, Source], cluster: str, reader: Reader, *, shared_gossip: bool) -> Secrets:
    """Read what is given and derive the rest.

    Args:
        sources: the keys of `secrets:`.
        cluster: the cluster's name.
        reader: reads them.
        shared_gossip: whether a gossip key that is not given comes from the key, as all servers of this cluster do it;
            otherwise agents of others have to be talked to, whose key nothing here derives.

    Returns:
        The credentials.

    Raises:
        NodeError: when one cannot be read, or is weak.
    """
    found = {}
    for name, source in sources.items():
        found[name] = reader.secret(source)
        weak = weakness(name, found[name])
        if weak is not None:
            raise reader.refuse(source.key, weak)
    derived = derive(found.pop(KEY), cluster) if KEY in found else {}
    if not shared_gossip:
        derived.pop(GOSSIP, None)
    return Secrets(**{**derived, **found})


def is_well_known(text: str) -> bool:
    """Tell whether text is only words and digits that every attacker tries first."""
    folded = text.strip().casefold()
    return folded in EXAMPLE_KEYS or _WORDS.fullmatch(re.sub(r"[\W_]", "", folded)) is not None


def weakness(purpose: str, text: str) -> str | None:
    """Return why a secret is refused (never quoting it), or None for a good one.

    Args:
        purpose: its key below `secrets:`.
        text: the secret.
    """
    if purpose == GOSSIP:
        return _no_gossip_key(text)
    least = MIN_LENGTH if purpose == KEY else MIN_PASSWORD
    if len(text.strip()) < least:
        return f"is too short: at least {least} characters; {GENERATE}"
    if is_well_known(text):
        return f"is a well-known or example value: {GENERATE}"
    if len(set(text)) < MIN_DISTINCT:
        return f"repeats fewer than {MIN_DISTINCT} different characters: {GENERATE}"
    if any(not char.isprintable() for char in text):
        return "holds a line break or another control character: one line is wanted"
    return None


def _no_gossip_key(text: str) -> str | None:
    try:
        length = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        length = 0
    # memberlist's keyring takes AES-128, AES-192 and AES-256; `consul keygen` makes 32 bytes since 1.9, 16 before.
    return None if length in (16, 24, 32) else "is not 16, 24 or 32 bytes in base64: make one with `consul keygen`"
