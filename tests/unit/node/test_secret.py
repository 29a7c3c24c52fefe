"""HKDF against RFC 5869, and keys that are refused."""

from __future__ import annotations

import base64
import runpy

import pytest

from patroni_node import derivation, secret

# RFC 5869 appendix A.1, A.2 and A.3, the SHA-256 cases.
VECTORS = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    ("0b" * 22, "", "", 42, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
]


BEFORE = {"superuser": "xxtgEslU_zWHSf4ZTotVGCVOqsHXeDiN", "gossip": "kq3sKQcfUwaUqQV4Ctr8Lu1y9mD96rMB1SKVsXP5J4Y="}
AFTER = {
    "superuser": "UuMXdxAjckVxXB9AZRFGit_qIY1LEruI",
    "gossip": "JhSOAHWHbj+qoGEx+xEwgv9Ygf2VrsWmSomc1XN34Wk=",
    "agent": "7657172e-3c17-4c16-abbc-dc7637984aa1",
}


def values(found: derivation.Derived) -> list[object]:
    more = (found.gossip, found.management, found.agent, found.authority, found.consul_authority)
    return [*found.passwords.values(), *(value for value in more if value is not None)]


@pytest.mark.parametrize(("key", "salt", "info", "length", "expected"), VECTORS)
def test_rfc_5869_vectors(key: str, salt: str, info: str, length: int, expected: str) -> None:
    derived = derivation.hkdf_sha256(bytes.fromhex(key), bytes.fromhex(salt), bytes.fromhex(info), length)
    assert derived.hex() == expected


@pytest.mark.parametrize("length", [0, -1, 255 * 32 + 1])
def test_length_beyond_the_rfc(length: int) -> None:
    with pytest.raises(ValueError, match="8160"):
        derivation.hkdf_sha256(b"k", b"", b"", length)


def test_credentials_differ_from_each_other_and_by_cluster_and_key() -> None:
    asked = [
        (key, cluster, v) for v in (1, 2) for key, cluster in (("key-one", "a"), ("key-one", "b"), ("x" * 16, "a"))
    ]
    found = [values(derivation.derive(*one)) for one in asked]
    assert [len(one) for one in found] == [5, 5, 5, 9, 9, 9]
    assert len({value for one in found for value in one}) == 42
    assert found[0] == values(derivation.derive("key-one", "a", 1))


def test_version_1_is_what_clusters_of_before_have() -> None:
    """Worked out by the program that made them: a change would lock every one of their nodes out."""
    found = derivation.derive("kJ8sd7f6Qw3rTy0pLmN2", "pg-15-cluster", 1)
    assert found.passwords["superuser"] == BEFORE["superuser"]
    assert found.gossip == BEFORE["gossip"]


def test_version_2_is_scrypt_and_hkdf_of_their_rfcs() -> None:
    """Worked out by openssl's `kdf` (SCRYPT, N 16384, then HKDF): what a guess costs is part of it."""
    # A copy of the module's own, whose cost no test has lowered.
    found = runpy.run_path(derivation.__file__)["derive"]("kJ8sd7f6Qw3rTy0pLmN2", "pg-15-cluster", 2)
    assert found.passwords["superuser"] == AFTER["superuser"]
    assert found.gossip == AFTER["gossip"]
    assert found.agent == AFTER["agent"]


def test_gossip_key_is_32_bytes_and_repr_shows_nothing() -> None:
    derived = derivation.derive("kJ8sd7f6Qw3rTy0pLmN2", "a", 2)
    assert len(base64.b64decode(derived.gossip)) == 32
    assert repr(derived) == "Derived()"
    assert repr(secret.Secrets(**derived.passwords, gossip=derived.gossip)) == "Secrets()"


@pytest.mark.parametrize(
    "key",
    [
        "hunter2",
        "exactly15chars!",
        "passwordpassword",
        "Postgres-Postgres-123",
        "patroni_replicator_2024",
        "changeme changeme",
        "replace-with-a-long-random-key",
        "<at least 16 chars>",
        "correct horse battery staple",
        "aaaaaaaaaaaaaaaaaaaa",
        "1234567890123456",
        "abababababababababab",
        "                    ",
    ],
)
def test_weak_keys(key: str) -> None:
    said = secret.weakness("key", key)
    assert said is not None
    assert "openssl rand" in said
    assert key not in said


@pytest.mark.parametrize(
    "key", ["kJ8sd7f6Qw3rTy0pLmN2", "!@#$%^&*()_+{}:<>?", "съешь ещё этих мягких", "wA+/9kqQ7Hc2Zt0mS4=="]
)
def test_good_keys(key: str) -> None:
    assert secret.weakness("key", key) is None
