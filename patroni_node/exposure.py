"""What a node.yml leaves open that a new cluster has closed: said by `check` and `status`, since it is no mistake."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from patroni_node.dcs import Consul
from patroni_node.model import Settings
from patroni_node.sources import MAX_BYTES, Source
from patroni_node.tls import TlsSources

CLEAR = (
    "passwords, queries and data cross the network in the clear; who listens there learns the password of the REST API,"
    " and is `postgres` on all nodes with it"
)
RAFT = (
    "Consul's Raft asks for no token: whoever reaches port 8300{} writes what he likes to the store, and is `postgres`"
    " on all nodes"
)
SHARED = (
    "dcs.consul.tls: its CA is that of `tls` as well, and to Consul's Raft, which asks for no token, whoever has a"
    " certificate of it is a server: give these agents a CA of their own"
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
    found = []
    if version == 1 or settings.tls == "off":
        why = BEFORE if version == 1 else OFF
        if not isinstance(settings.tls, TlsSources):
            found.append(f"{why}: {CLEAR}")
        if own_servers and dcs.tls is None:
            who = ", or has an account on a node," if version == 1 else " from `networks`"
            found.append(f"{why}: {RAFT.format(who)}")
    if own_servers and dcs.tls and isinstance(settings.tls, TlsSources) and _same(dcs.tls.ca, settings.tls.ca):
        found.append(SHARED)
    return tuple(found)


def _same(one: Source, other: Source) -> bool:
    """Whether both come from one place, or have a certificate in common, as far as that can be read here."""
    places = [(source.text, source.file, source.credential) for source in (one, other)]
    return places[0] == places[1] or bool(_certificates(one) & _certificates(other))


def _certificates(source: Source) -> set[str]:
    text = source.text or ""
    if source.file:
        with suppress(OSError), open(os.open(source.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            text = stream.read(MAX_BYTES).decode("ascii", "replace")
    return {"".join(found.split()) for found in _PEM.findall(text)}


_PEM = re.compile("-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")
