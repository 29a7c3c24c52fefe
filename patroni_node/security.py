"""What protects a cluster, in versions: a node of before stays what its cluster is until somebody asks for more.

1: what clusters of before have: no authority, no tokens but the given one, no filter. 2: an authority of the cluster's
own, Consul's rules with `deny` as the default, a packet filter, and credentials derived in their second version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from patroni_node import scram
from patroni_node.dcs import Consul
from patroni_node.errors import NodeError, Problem
from patroni_node.model import Settings
from patroni_node.network import IP, bracketed
from patroni_node.paths import Paths
from patroni_node.rest import Question, ask_briefly

NEWEST = 2
REST_PORT, POSTGRESQL_PORT = 8008, 5432
PROOF_SECONDS = 3.0


@dataclass(frozen=True)
class Peer:
    """What a peer's answers tell. plain: its REST API speaks http, for this cluster. proved: its PostgreSQL knows the
    password of `replicator` in version 1."""

    address: IP
    plain: bool
    proved: bool


Look = Callable[[IP, str, str | None], Peer]
"""look, or what stands in for it in tests."""


def to_json(version: int) -> bytes:
    """Return what the state file holds."""
    return (json.dumps({"version": version}) + "\n").encode()


def read(paths: Paths) -> int | None:
    """Return the version that this machine's cluster was found to have; None for a machine that was no node yet.

    Raises:
        NodeError: when the state file is damaged.
    """
    try:
        raw = paths.security.read_text(encoding="utf-8")
    except FileNotFoundError:
        return 1 if paths.identity.exists() else None
    except (OSError, UnicodeDecodeError):
        raw = ""
    try:
        version = json.loads(raw)["version"]
        if version in (1, NEWEST):
            return int(version)
    except (ValueError, KeyError, TypeError):
        pass
    message = "is damaged: write `tls: auto` (a cluster of before: `compatibility: 1`) to node.yml, and delete it"
    raise NodeError(Problem(message, str(paths.security)))


def resolve(paths: Paths, settings: Settings, own: IP, password: str | None, look: Look) -> int:
    """Return the version that this node's cluster has: as recorded, as node.yml says, or as other members show.

    A member of before is believed only where its PostgreSQL proves that it knows the password that the key derives in
    version 1, so nobody on the network can talk a new node out of its protection.

    Args:
        paths: where the state file is.
        settings: node.yml.
        own: this node's address.
        password: of `replicator` in version 1, None where it is not derived.
        look: asks a peer.

    Raises:
        NodeError: when node.yml asks for another version than the cluster has, or a member of before proves nothing.
    """
    known = read(paths)
    # Until there is data, nothing binds this machine: the others may have been down when it was looked for them.
    if known == 1 or (known is not None and (paths.data_dir / "PG_VERSION").exists()):
        return _agreed(known, settings)
    if settings.compatibility == 1:
        return 1
    peers = settings.dcs.peers(own) if isinstance(settings.dcs, Consul) and settings.dcs.mode == "server" else ()
    if settings.tls in ("auto", "off") or not peers:
        return NEWEST
    with ThreadPoolExecutor(len(peers)) as pool:
        seen = list(pool.map(lambda ip: look(ip, settings.cluster, password), peers))
    if any(peer.proved for peer in seen):
        return 1
    plain = [peer for peer in seen if peer.plain]
    if not plain or settings.tls is not None:
        return NEWEST
    message = (
        f"is not set, and {plain[0].address} answers for this cluster without TLS and proves nothing: write `tls:` as"
        " the other nodes have it, or `compatibility: 1` if the cluster was made before `tls: auto` was the default"
    )
    raise NodeError(Problem(message, str(paths.node_file), key=("tls",)))


def _agreed(known: int, settings: Settings) -> int:
    if known == 1 and settings.tls in ("auto", "off"):
        message = "is for a cluster with the protection of today, which this one has not yet: run `patroni-node secure`"
        raise NodeError(settings.document.problem(("tls",), message))
    if known == NEWEST and settings.compatibility == 1:
        message = "is for a cluster of before, which this one is not any more: remove it"
        raise NodeError(settings.document.problem(("compatibility",), message))
    return known


def look(address: IP, cluster: str, password: str | None) -> Peer:
    """Ask a peer whether its REST API speaks http, and whether its PostgreSQL knows a password; seconds at most."""
    answer = ask_briefly(Question(f"http://{bracketed(address)}:{REST_PORT}/patroni"))
    who = answer.body.get("patroni") if isinstance(answer.body, dict) else None
    plain = isinstance(who, dict) and who.get("scope") == cluster
    proved = password is not None and scram.proves_password(
        str(address), POSTGRESQL_PORT, "replicator", password, PROOF_SECONDS
    )
    return Peer(address, plain, proved is True)
