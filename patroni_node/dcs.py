"""The distributed configuration store: Consul beside, before or away from this node, or etcd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from patroni_node.errors import NodeError, Problem
from patroni_node.network import IP
from patroni_node.tls import TlsSources

ALONE = "is 1 but join names other servers: each node would become a cluster of its own"
NOBODY = "is {} but join names no other server: list their addresses in join"

ConsulMode = Literal["server", "client", "external"]


@dataclass(frozen=True)
class Consul:
    """Consul's agent; a server's peers are known once this node's own address is.

    host, port: of an external agent only.
    """

    mode: ConsulMode = "server"
    join: tuple[IP, ...] = ()
    expect: int | None = None
    datacenter: str = "dc1"
    host: str = "127.0.0.1"
    port: int = 8500
    tls: TlsSources | None = None
    register_service: bool = True

    @property
    def local(self) -> bool:
        """Whether the agent runs on this node."""
        return self.mode != "external"

    def peers(self, own: IP) -> tuple[IP, ...]:
        """Return the other servers: one list can serve all nodes, so it may name this one."""
        return tuple(ip for ip in dict.fromkeys(self.join) if ip != own)

    def servers(self, own: IP) -> int:
        """Return how many servers wait for each other before the first election.

        Raises:
            NodeError: when `expect` contradicts the peers, now that this node's address is known.
        """
        peers = self.peers(own)
        if self.expect is None:
            return len(peers) + 1
        if (self.expect == 1) != (not peers):
            message = ALONE if peers else NOBODY.format(self.expect)
            raise NodeError(Problem(message, key=("dcs", "consul", "expect")))
        return self.expect


@dataclass(frozen=True)
class Etcd:
    """etcd's servers, spoken to by its version 3 protocol."""

    hosts: tuple[str, ...]
    username: str | None = None
    tls: TlsSources | None = None


Dcs = Consul | Etcd
