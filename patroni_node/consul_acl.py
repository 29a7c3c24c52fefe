"""Consul's rules: what this cluster's token may do, and what who has none may see.

Source: Consul 1.8, HTTP API, "ACL Tokens" and "ACL Policies".
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any

from patroni_node import effective
from patroni_node.errors import NodeError, Problem, UnavailableError
from patroni_node.paths import Paths

AGENT = ("127.0.0.1", 8500)
ANONYMOUS = "00000000-0000-0000-0000-000000000002"
POLL_SECONDS = 0.1
MEMBERS, NAMES = "patroni-node", "patroni-node-names"
MAX_BYTES = 1024 * 1024

Call = Callable[[str, str, str, Any], tuple[int, Any]]
"""Takes method, path, token and a value for the body; returns the status code, 0 where nobody answers, and the JSON."""


def rules(cluster: str) -> dict[str, str]:
    """Return the rules of each policy.

    One token serves all agents, so it may register any node. Names are for everybody, or DNS would not answer.
    """
    return {
        MEMBERS: (
            f'key_prefix "service/{cluster}/" {{ policy = "write" }}\n'
            'session_prefix "" { policy = "write" }\n'
            f'service "{cluster}" {{ policy = "write" }}\n'
            'node_prefix "" { policy = "write" }\n'
            'agent_prefix "" { policy = "read" }\n'
        ),
        NAMES: f'node_prefix "" {{ policy = "read" }}\nservice "{cluster}" {{ policy = "read" }}\n',
    }


def run(paths: Paths, wait: float) -> str:
    """Write the rules that this node's files speak of; returns a sentence.

    Raises:
        NodeError: when there are none. UnavailableError: when Consul does not take them in time.
    """
    try:
        tokens = json.loads(paths.consul_json.read_text(encoding="utf-8"))["acl"]["tokens"]
        management, token = tokens["master"], tokens["agent"]
    except (OSError, ValueError, KeyError, TypeError):
        raise NodeError(
            Problem("names no tokens: this node's Consul has no rules of ours", str(paths.consul_json))
        ) from None
    now = effective.read(paths.patroni_yml)
    if now is None:
        raise NodeError(Problem("cannot be read: run `systemctl restart patroni-node`", str(paths.patroni_yml)))
    return (
        "wrote Consul's rules" if apply(now.cluster, management, token, wait) else "Consul's rules are as they shall be"
    )


def call(method: str, path: str, token: str, value: Any = None) -> tuple[int, Any]:
    """Ask the agent on this node; see Call."""
    connection = http.client.HTTPConnection(*AGENT, timeout=10)
    try:
        body = None if value is None else json.dumps(value)
        connection.request(method, f"/v1/acl/{path}", body, {"X-Consul-Token": token})
        answer = connection.getresponse()
        raw = answer.read(MAX_BYTES)
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    try:
        return answer.status, json.loads(raw)
    except (ValueError, RecursionError):
        return answer.status, raw.decode(errors="replace").strip()


def apply(
    cluster: str,
    management: str,
    token: str,
    wait: float,
    call: Call = call,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Make the policies, and the token that Patroni and the agents show; others' rules stay as they are.

    Args:
        cluster: its name.
        management: the token that may do so.
        token: the one that is made.
        wait: seconds to wait until Consul has a leader; others of the cluster may do the same at the same time.

    Returns:
        Whether something was changed.

    Raises:
        UnavailableError: when it did not work within that time; with what Consul said last.
    """
    deadline = time.monotonic() + wait
    changed = False
    while True:
        work = _Work(management, call)
        try:
            work.settle(cluster, token)
        except _RefusedError as error:
            changed = changed or work.changed
            if time.monotonic() >= deadline:
                message = f"Consul's rules could not be written within {wait:.0f} s; it said: {error}"
                raise UnavailableError(message) from None
            sleep(POLL_SECONDS)
            continue
        return changed or work.changed


class _RefusedError(Exception):
    """Consul did not do what it was asked, now."""


class _Work:
    def __init__(self, management: str, call: Call) -> None:
        self._management = management
        self._call = call
        self.changed = False

    def settle(self, cluster: str, token: str) -> None:
        """Bring policies and tokens to what they shall be."""
        for name, text in rules(cluster).items():
            self._policy(name, text)
        code, _ = self._call("GET", "token/self", token, None)
        if code != 200 and token != self._management:
            wanted = {
                "SecretID": token,
                "Description": f"Patroni and agents of {cluster}",
                "Policies": [{"Name": MEMBERS}],
            }
            self._ask("PUT", "token", wanted)
        known = self._ask("GET", f"token/{ANONYMOUS}")
        policies = known.get("Policies") or []
        if all(policy.get("Name") != NAMES for policy in policies):
            self._ask("PUT", f"token/{ANONYMOUS}", {**known, "Policies": [*policies, {"Name": NAMES}]})

    def _policy(self, name: str, text: str) -> None:
        known = {policy["Name"]: policy["ID"] for policy in self._ask("GET", "policies")}
        wanted = {"Name": name, "Rules": text, "Description": "Written by patroni-node"}
        if name not in known:
            self._ask("PUT", "policy", wanted)
        elif self._ask("GET", f"policy/{known[name]}").get("Rules") != text:
            self._ask("PUT", f"policy/{known[name]}", {**wanted, "ID": known[name]})

    def _ask(self, method: str, path: str, value: Any = None) -> Any:
        code, body = self._call(method, path, self._management, value)
        if code != 200:
            raise _RefusedError(str(body) if code else "nothing, the agent does not answer")
        self.changed = self.changed or method == "PUT"
        return body
