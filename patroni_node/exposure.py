"""What a node.yml leaves open that a new cluster has closed: said by `check` and `status`, since it is no mistake."""

from __future__ import annotations

from patroni_node.dcs import Consul
from patroni_node.model import Settings
from patroni_node.tls import TlsSources

CLEAR = (
    "passwords, queries and data cross the network in the clear; who listens there learns the password of the REST API,"
    " and is `postgres` on all nodes with it"
)
RAFT = (
    "Consul's Raft asks for no token: whoever reaches port 8300{} writes what he likes to the store, and is `postgres`"
    " on all nodes"
)
OFF, BEFORE = "tls: off", "a cluster of before (`patroni-node secure` closes it)"


def sentences(settings: Settings, version: int) -> tuple[str, ...]:
    """Return what is open, each with why; nothing where node.yml asks for what a new cluster has.

    Args:
        settings: node.yml.
        version: of the cluster's protection, of security.py.
    """
    dcs = settings.dcs
    own_servers = isinstance(dcs, Consul) and dcs.mode == "server"
    why = BEFORE if version == 1 else OFF if settings.tls == "off" else None
    if why is None:
        return ()
    found = [] if isinstance(settings.tls, TlsSources) else [CLEAR]
    if own_servers and dcs.tls is None:
        found.append(RAFT.format(", or has an account on a node," if version == 1 else " from `networks`"))
    return tuple(f"{why}: {what}" for what in found)
