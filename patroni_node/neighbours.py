"""Is another machine running under this node's name already? Asked before anything of this node starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from patroni_node import rest
from patroni_node.errors import NodeError, Problem
from patroni_node.network import IP, bracketed
from patroni_node.tls import Tls

PORT = 8008

Fetch = Callable[[str, str | None], Any]
"""Takes a URL and the PEM of a CA for https; returns the JSON there, or None where nobody answers in time."""


def fetch(url: str, ca: str | None) -> Any:
    """Return the JSON at url, or None where nobody answers within seconds or answers something else."""
    answer = rest.ask_briefly(rest.Question(url, rest.Trust(ca) if ca else None))
    return answer.body if answer.code == 200 else None


def require_unique(cluster: str, name: str, own: IP, peers: Sequence[IP], tls: Tls | None, ask: Fetch = fetch) -> None:
    """Ask the cluster's other nodes whether a machine of this name runs at another address.

    Consul would let two agents of one name fight, and Patroni, which does refuse (__main__.py, ensure_unique_name),
    would not get as far as asking. Where nobody answers, as when all nodes boot at once, nothing is refused. An
    address that answers under another name has changed hands since, which is no conflict.

    Args:
        cluster: the cluster's name.
        name: this node's name.
        own: this node's address.
        peers: addresses of nodes that may know.
        tls: the certificates of the cluster's REST APIs, or None where they speak http.
        ask: for tests.

    Raises:
        NodeError: when one does.
    """
    ca = tls.ca if tls else None
    scheme = "https" if tls else "http"

    def all_of(urls: Sequence[str]) -> list[Any]:
        if not urls:
            return []
        with ThreadPoolExecutor(len(urls)) as pool:
            return list(pool.map(lambda url: ask(url, ca), urls))

    known = all_of([f"{scheme}://{bracketed(ip)}:{PORT}/cluster" for ip in peers])
    claimed = sorted({url for found in known for url in _claims(found, cluster, name, own)})
    for url, found in zip(claimed, all_of(claimed), strict=True):
        who = found.get("patroni") if isinstance(found, dict) else None
        if isinstance(who, dict) and (who.get("name"), who.get("scope")) == (name, cluster):
            host = url.partition("://")[2].partition("/")[0]
            message = f"{name} is the name of a node that runs at {host}: set another `name:`, or stop that node"
            raise NodeError(Problem(message, key=("name",)))


def _claims(found: Any, cluster: str, name: str, own: IP) -> list[str]:
    """The REST APIs that a cluster's list of members (GET /cluster) gives for this name at other addresses."""
    members = found.get("members") if isinstance(found, dict) and found.get("scope", cluster) == cluster else None
    urls = []
    for member in members if isinstance(members, list) else ():
        same = isinstance(member, dict) and member.get("name") == name and member.get("host") != str(own)
        if same and str(member.get("api_url", "")).startswith(("http://", "https://")):
            urls.append(str(member["api_url"]))
    return urls
