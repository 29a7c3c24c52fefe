"""`patroni-node check`: what is wrong with a file, before a node is started with it."""

from __future__ import annotations

from pathlib import Path

from patroni_node import document, lint, patroni_yml
from patroni_node.errors import NodeError, Problem
from patroni_node.paths import Paths


def check(path: Path | None = None) -> str:
    """Check a node.yml or a patroni.yml, told apart by what is in it; works on any machine, without the store.

    Args:
        path: the file; by default this node's node.yml with its drop-ins.

    Returns:
        The sentence that says that all is well, and what is open nevertheless, a line each.

    Raises:
        NodeError: with every problem of the file.
    """
    if path is not None:
        hand_made = _hand_made(path)
        if hand_made is not None:
            problems = lint.findings(hand_made, path)
            if problems:
                raise NodeError(problems)
            return f"{path}: a patroni.yml without a known mistake"
    # JSON Schema takes longer to import than all the rest.
    from patroni_node import exposure, security, settings

    new = path is not None or security.read(Paths()) != 1
    settled = settings.build(_node_yml(path) if path else settings.read_document(Paths()), new=new)
    where = path or Paths().node_file
    version = 1 if not new or settled.compatibility == 1 else security.NEWEST
    left_open = (f"{where}: open: {sentence}" for sentence in exposure.sentences(settled, version))
    return "\n".join([f"{where}: a node of cluster {settled.cluster}", *left_open])


def _hand_made(path: Path) -> patroni_yml.PatroniYml | None:
    """Return a patroni.yml; None for what is a node.yml, or cannot be read and is not called patroni."""
    try:
        found = patroni_yml.read(path)
    except NodeError:
        if lint.looks_like_one(path):
            raise
        return None
    return found if lint.is_one(found.document.data, path) else None


def _node_yml(path: Path) -> document.Document:
    try:
        return document.read(path)
    except FileNotFoundError:
        raise NodeError(Problem("does not exist", str(path))) from None
