"""From one key to every credential of a cluster.

Version 1 is what clusters have that were made before version 2 was there; their passwords stay what they are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass, field

PASSWORDS = ("superuser", "replication", "rewind", "restapi")

# RFC 7914, section 2: 128 * N * r bytes, so 16 MiB, which the smallest node has; about 0.1 s.
SCRYPT_COST, SCRYPT_BLOCK, SCRYPT_PARALLEL = 2**14, 8, 1
SCRYPT_MEMORY = 32 * 1024 * 1024


@dataclass(frozen=True)
class Derived:
    """What a key and a cluster's name give; the repr shows none of it.

    passwords: by purpose, 24 bytes as base64url. gossip: 32 bytes as base64, Consul's `encrypt`. management, agent:
    Consul's tokens, UUIDs. authority, consul_authority: what the private keys of the cluster's own authorities are
    made of. The last four are None in version 1.
    """

    passwords: dict[str, str] = field(repr=False)
    gossip: str = field(repr=False)
    management: str | None = field(default=None, repr=False)
    agent: str | None = field(default=None, repr=False)
    authority: bytes | None = field(default=None, repr=False)
    consul_authority: bytes | None = field(default=None, repr=False)


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


def derive(key: str, cluster: str, version: int) -> Derived:
    """Return the credentials that every node with this key and cluster name derives alike.

    The cluster's name is the salt, so one key used twice gives two sets. Version 2 stretches the key once by scrypt
    (RFC 7914), so that a guess costs memory and time, and takes the gossip key, which every message shows to whoever
    listens, from a root of its own.

    Args:
        key: the key, as it was given.
        cluster: the cluster's name.
        version: 1 or 2.
    """
    if version == 1:
        return Derived(_passwords(key.encode(), cluster, 1), _gossip(key.encode(), cluster, 1))
    stretched = hashlib.scrypt(
        key.encode(),
        salt=f"patroni-node/2/{cluster}".encode(),
        n=SCRYPT_COST,
        r=SCRYPT_BLOCK,
        p=SCRYPT_PARALLEL,
        maxmem=SCRYPT_MEMORY,
        dklen=64,
    )
    root, gossip = stretched[:32], stretched[32:]
    return Derived(
        _passwords(root, cluster, 2),
        _gossip(gossip, cluster, 2),
        management=_uuid(root, cluster, "consul-management"),
        agent=_uuid(root, cluster, "consul-agent"),
        authority=_material(root, cluster, 2, "authority", 48),
        consul_authority=_material(root, cluster, 2, "consul-authority", 48),
    )


def _material(root: bytes, cluster: str, version: int, purpose: str, length: int) -> bytes:
    return hkdf_sha256(root, cluster.encode(), f"patroni-node/{version}/{purpose}".encode(), length)


def _passwords(root: bytes, cluster: str, version: int) -> dict[str, str]:
    found = {name: _material(root, cluster, version, name, 24) for name in PASSWORDS}
    return {name: base64.urlsafe_b64encode(raw).decode() for name, raw in found.items()}


def _gossip(root: bytes, cluster: str, version: int) -> str:
    return base64.b64encode(_material(root, cluster, version, "consul-gossip", 32)).decode()


def _uuid(root: bytes, cluster: str, purpose: str) -> str:
    return str(uuid.UUID(bytes=_material(root, cluster, 2, purpose, 16), version=4))
