"""The certificates of a node: those that node.yml names, else those of the cluster's own authority."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from patroni_node import tls
from patroni_node.authority import Member
from patroni_node.dcs import Consul
from patroni_node.errors import NodeError
from patroni_node.model import Settings
from patroni_node.network import IP
from patroni_node.paths import Paths
from patroni_node.secret import Secrets
from patroni_node.sources import Reader
from patroni_node.tls import RunOpenssl, Tls

NONE = Tls("")

Issue = Callable[[bytes, Member, Tls | None], Tls]
"""authority.certify, its time settled."""


@dataclass(frozen=True)
class Pems:
    """own: of PostgreSQL and the REST API. dcs: what is shown to the store, or by Consul's agents to each other."""

    own: Tls | None
    dcs: Tls | None


def read_given(wanted: Settings, reader: Reader, own: IP, run: RunOpenssl) -> Pems:
    """Return what node.yml names. Raises NodeError, as tls.load does."""
    given = wanted.tls if isinstance(wanted.tls, tls.TlsSources) else None
    return Pems(
        None if given is None else tls.load(given, reader, own, run),
        None if wanted.dcs.tls is None else tls.load(wanted.dcs.tls, reader, None, run),
    )


def add_own(paths: Paths, wanted: Settings, member: Member, secrets: Secrets, given: Pems, issue: Issue) -> Pems:
    """Add what the cluster's own authorities issue, where node.yml names no certificates.

    Consul's agents have an authority of their own: its Raft takes any certificate of it and asks for no token, and
    whoever runs code in the database reads the key of the other one.

    Raises:
        NodeError: when there is no key that the authorities could follow from.
    """
    dcs = wanted.dcs
    for_store = isinstance(dcs, Consul) and dcs.mode == "server" and dcs.tls is None
    if wanted.tls == "off" or not (for_store or given.own is None):
        return given
    if secrets.authority is None or secrets.consul_authority is None:
        message = "is missing: the cluster's own authority follows from it; without TLS: write `tls: off`"
        raise NodeError(wanted.document.problem(("secrets", "key"), message))
    acts: dict[str, Callable[[], Tls]] = {}
    if given.own is None:
        named = isinstance(dcs, Consul) and dcs.register_service
        names = tuple(f"{part}{member.cluster}.service.consul" for part in ("", "*.") if named)
        present = tls.read_present(paths.tls / "ca.pem", paths.tls / "node.pem", paths.tls / "node.key")
        acts["own"] = partial(issue, secrets.authority, replace(member, dns=names), present)
    if isinstance(dcs, Consul) and for_store:
        server = replace(member, dns=(f"server.{dcs.datacenter}.consul",))
        before = tls.read_present(paths.consul_ca, paths.consul_certificate, paths.consul_key)
        acts["dcs"] = partial(issue, secrets.consul_authority, server, before)
    # Most of it is openssl(1): both at once.
    with ThreadPoolExecutor(len(acts)) as pool:
        futures = {name: pool.submit(act) for name, act in acts.items()}
    return replace(given, **{name: future.result() for name, future in futures.items()})


def trusted_by_consul(pems: Pems, version: int) -> str | None:
    """Return whom Consul's agent believes: its own peers, and in version 1 also this node's REST API.

    The two are one list to Consul, so from version 2 on the authority of the REST API is in a list of its own, for
    health checks: all of its certificates would be let in as servers of Consul.
    """
    found = [pems.dcs.ca] if pems.dcs is not None else []
    if version == 1 and pems.own is not None and (pems.dcs is None or pems.own.ca != pems.dcs.ca):
        found.append(pems.own.ca)
    return "".join(pem.strip() + "\n" for pem in found) or None
