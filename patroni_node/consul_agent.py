"""What the configuration of Consul's agent on this node says (Consul 1.8, "Agent Configuration")."""

from __future__ import annotations

from typing import Any

from patroni_node import network
from patroni_node.dcs import Consul
from patroni_node.model import Node
from patroni_node.paths import Paths

# Paths as the rendered files spell them, whatever root a test writes below.
_HERE = Paths()


def context(node: Node) -> dict[str, Any] | None:
    """Return what the template of the agent's configuration may use; None where there is no agent on this node."""
    dcs, own = node.settings.dcs, node.address
    if not (isinstance(dcs, Consul) and dcs.local):
        return None
    server = dcs.mode == "server"
    return {
        "server": server,
        "expect": dcs.servers(own) if server else None,
        "retry_join": [network.bracketed(ip) for ip in dcs.peers(own)],
        "datacenter": dcs.datacenter,
        # A server that leaves at each reboot shrinks the quorum; a client that stays is a failed member for days.
        "leaves": not server,
        "options": _tls(node, dcs) | _rules(node, server=server) | _ports(node),
    }


def _tls(node: Node, dcs: Consul) -> dict[str, Any]:
    options: dict[str, Any] = {}
    old = node.tls and node.version == 1
    if old or node.dcs_certificate or dcs.tls is not None:
        options["ca_file"] = str(_HERE.consul_ca)
    if old:
        # Else Consul's health check of Patroni's https would know no CA but the system's (tlsutil, 1.8).
        options["enable_agent_tls_for_checks"] = True
        # Else it would look for the node's name in the certificate, which need not have it (OutgoingTLSConfigForCheck).
        options["server_name"] = str(node.address)
    if dcs.tls is not None or node.dcs_certificate:
        options |= {"cert_file": str(_HERE.consul_certificate), "key_file": str(_HERE.consul_key)}
        options |= {"verify_incoming_rpc": True, "verify_outgoing": True}
    if dcs.tls is None and node.dcs_certificate:
        # Of the cluster's own authority, whose certificates of servers have the name that this asks for.
        options["verify_server_hostname"] = True
    return options


def _rules(node: Node, *, server: bool) -> dict[str, Any]:
    """Rules for requests, where there is a token; servers take one as their first management token."""
    token, management = node.secrets.consul_token, node.secrets.consul_management
    if token is None:
        return {}
    tokens = {"agent": token} | ({"master": management or token} if server else {})
    rules: dict[str, Any] = {"enabled": True, "tokens": tokens}
    if server:
        rules |= {"default_policy": "deny", "down_policy": "extend-cache"}
    return {"acl": rules}


def _ports(node: Node) -> dict[str, Any]:
    """No port for other datacenters: there is one, and who needs more joins servers of his own."""
    return {"ports": {"serf_wan": -1}} if node.version > 1 else {}
