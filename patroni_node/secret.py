"""One key in, every password of the cluster out; what everybody knows is refused."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from patroni_node.derivation import PASSWORDS, Derived, derive
from patroni_node.sources import Reader, Source

KEY = "key"
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

    gossip: Consul's `encrypt`, None where its agents talk in the clear. consul_token: what Patroni and the agent show
    to Consul. consul_management: what may change Consul's rules. etcd: a password. authority, consul_authority: what
    the cluster's own authorities are made of. All of these are None where there is none.
    """

    superuser: str = field(repr=False)
    replication: str = field(repr=False)
    rewind: str = field(repr=False)
    restapi: str = field(repr=False)
    gossip: str | None = field(default=None, repr=False)
    consul_token: str | None = field(default=None, repr=False)
    consul_management: str | None = field(default=None, repr=False)
    etcd: str | None = field(default=None, repr=False)
    authority: bytes | None = field(default=None, repr=False)
    consul_authority: bytes | None = field(default=None, repr=False)


def read_given(sources: Mapping[str, Source], reader: Reader) -> dict[str, str]:
    """Return what is given, by the keys of `secrets:`. Raises NodeError when one cannot be read."""
    return {name: reader.secret(source) for name, source in sources.items()}


def collect(
    sources: Mapping[str, Source],
    given: Mapping[str, str],
    cluster: str,
    reader: Reader,
    *,
    own_store: bool,
    version: int,
) -> Secrets:
    """Check what is given and derive the rest.

    Args:
        sources: the keys of `secrets:`.
        given: what they say, as read_given returns it.
        cluster: the cluster's name.
        reader: words refusals.
        own_store: whether the nodes themselves are Consul's servers, so that gossip key and tokens come from the key;
            otherwise agents of others have to be talked to, whose secrets nothing here derives.
        version: the cluster's, of security.py.

    Returns:
        The credentials.

    Raises:
        NodeError: when one is weak.
    """
    for name, text in given.items():
        weak = weakness(name, text) or (too_weak(name, text) if version > 1 else None)
        if weak is not None:
            raise reader.refuse(sources[name].key, weak)
    derived = derive(given[KEY], cluster, version) if KEY in given else None
    found = {**_derived(derived, own_store=own_store), **{n: text for n, text in given.items() if n != KEY}}
    if own_store and "consul_token" in given:
        # It is all tokens in one, as the page says.
        found["consul_management"] = given["consul_token"]
    return Secrets(
        **found,
        authority=derived.authority if derived else None,
        consul_authority=derived.consul_authority if derived else None,
    )


def _derived(derived: Derived | None, *, own_store: bool) -> dict[str, str]:
    if derived is None:
        return {}
    store = {GOSSIP: derived.gossip, "consul_token": derived.agent, "consul_management": derived.management}
    return derived.passwords | {name: text for name, text in store.items() if own_store and text}


def too_weak(purpose: str, text: str) -> str | None:
    """Return why a secret that a person thought up is refused for a new cluster, or None.

    Args:
        purpose: its key below `secrets:`.
        text: the secret.
    """
    # Its lists need not be read where all secrets are of before.
    from patroni_node import strength

    if purpose == KEY:
        return strength.weakness(text)
    return strength.password_weakness(text) if purpose in PASSWORDS else None


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
