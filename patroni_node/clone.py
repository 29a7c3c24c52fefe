"""A machine that was copied from another one: what must not be carried over to it."""

from __future__ import annotations

import os
import shutil

from patroni_node.errors import InstallError, Problem
from patroni_node.identity import Identity
from patroni_node.paths import Paths


def forget(paths: Paths, earlier: Identity | None, now: Identity) -> bool:
    """Set Consul's state aside on a machine that has become another instance.

    Two agents with one node-id refuse to talk to each other, and a server's state names the servers of where it was.
    PostgreSQL's data stays: of the same cluster, it makes the clone a replica that need not be copied again; of
    another, Patroni refuses it by its system identifier. Consul does not run yet when this is called at boot.

    Args:
        paths: where everything is.
        earlier: who this machine was at its last boot, if it had one.
        now: who it is.

    Returns:
        Whether there was something to set aside. Of several clonings the last state is kept.

    Raises:
        InstallError: when it cannot be moved; it is still there then.
    """
    if earlier is None or earlier.instance_id == now.instance_id:
        return False
    members = sorted(paths.consul_data.glob("*")) if paths.consul_data.is_dir() else []
    if not members:
        return False
    try:
        shutil.rmtree(paths.set_aside, ignore_errors=True)
        paths.set_aside.mkdir(parents=True, mode=0o700)
        for member in members:
            # The folder itself stays: it belongs to Consul's package, and may be a mount point.
            shutil.move(member, paths.set_aside / member.name)
    except OSError as error:
        where = os.fspath(error.filename or paths.consul_data)
        raise InstallError(Problem(f"cannot be set aside ({error.strerror}): free space", where)) from None
    return True
