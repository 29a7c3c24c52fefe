"""Who this node is: a name that is kept for the life of the instance."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass

from patroni_node.errors import NodeError, Problem
from patroni_node.paths import Paths

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

SHARED_HOST_NAMES = frozenset({"", "(none)", "debian", "localhost", "localhost.localdomain", "localhost6"})
"""Host names that say nobody named this machine: two such nodes would be one member."""


@dataclass(frozen=True)
class Identity:
    """The member's name and the instance that it belongs to."""

    instance_id: str
    name: str

    def to_json(self) -> bytes:
        """Return what the state file holds."""
        return (json.dumps({"instance_id": self.instance_id, "name": self.name}, indent=2) + "\n").encode()


def instance_id(paths: Paths) -> str:
    """Return cloud-init's instance-id, else (no cloud-init) the machine-id.

    Raises:
        NodeError: when the machine has neither, and a clone could not be told from its original.
    """
    for source, prefix in ((paths.instance_id, ""), (paths.machine_id, "machine-id:")):
        try:
            text = source.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        if text and text != "uninitialized":
            return prefix + text
    raise NodeError(Problem("neither cloud-init's instance-id nor a machine-id exists: run `systemd-machine-id-setup`"))


def resolve(paths: Paths, given: str | None, host_name: str | None = None) -> Identity:
    """Return this boot's identity without writing it.

    Args:
        paths: where the state file and the instance-id are.
        given: `name:` of node.yml; it always wins.
        host_name: for tests; the kernel's host name by default.

    Returns:
        The given name, else the name kept for this instance-id, else the host name.

    Raises:
        NodeError: when the state file is damaged or the host name cannot be a member's name.
    """
    instance = instance_id(paths)
    if given is not None:
        return Identity(instance, given)
    kept = _kept(paths)
    if kept is not None and kept.instance_id == instance:
        return kept
    name = socket.gethostname() if host_name is None else host_name
    if name.lower() in SHARED_HOST_NAMES:
        message = f"is not set and the host name is {name or 'empty'}, which other nodes may have too: set `name:`"
        raise NodeError(Problem(message, str(paths.node_file), key=("name",)))
    if NAME.fullmatch(name) is None:
        message = f"is not set and the host name {name} is no member name (letters, digits, . _ -): set `name:`"
        raise NodeError(Problem(message, str(paths.node_file), key=("name",)))
    return Identity(instance, name)


def earlier(paths: Paths) -> Identity | None:
    """Return who the state file says this machine was, or None where it says nothing."""
    try:
        return _kept(paths)
    except NodeError:
        return None


def _kept(paths: Paths) -> Identity | None:
    try:
        raw = paths.identity.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raw = ""
    try:
        state = json.loads(raw)
        instance, name = state["instance_id"], state["name"]
        if isinstance(instance, str) and isinstance(name, str) and NAME.fullmatch(name):
            return Identity(instance, name)
    except (ValueError, KeyError, TypeError):
        pass
    message = "is damaged: set `name:` in node.yml to this member's name, or delete the file to take the host name"
    raise NodeError(Problem(message, str(paths.identity)))
