"""What `patroni-node status` found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from patroni_node.commands import Unit
from patroni_node.member import Cluster, Member
from patroni_node.store import StoreState


@dataclass(frozen=True)
class File:
    """A file and, of a rendered one, whether it is what node.yml asks for (None: that cannot be told)."""

    path: Path
    modified: datetime | None
    current: bool | None = None

    @property
    def present(self) -> bool:
        return self.modified is not None


@dataclass(frozen=True)
class Configured:
    """What node.yml makes of this machine, or, while it is refused, what an earlier one made.

    name_from: where `name:` is written, "kept" since the first boot, "host name", or "patroni.yml".
    consul_here: whether an agent belongs to this node. left_open: what is not protected, though node.yml is accepted.
    refusals: of node.yml as it is. last_refusal: of the last run.
    """

    cluster: str = ""
    name: str = ""
    name_from: str = ""
    instance_id: str = ""
    address: str = ""
    consul_here: bool = False
    left_open: tuple[str, ...] = ()
    sources: tuple[File, ...] = ()
    rendered: tuple[File, ...] = ()
    refusals: tuple[str, ...] = ()
    last_refusal: tuple[str, ...] = ()

    @property
    def outdated(self) -> list[Path]:
        return [found.path for found in self.rendered if found.current is False]


@dataclass(frozen=True)
class Report:
    """All that was found.

    url: of this node's Patroni. alone: whether PostgreSQL runs while Patroni does not answer. paused: whether the
    cluster is in maintenance mode; None where nobody could say it.
    """

    configured: Configured
    units: dict[str, Unit]
    store: StoreState | None = None
    url: str = ""
    member: Member = field(default_factory=Member)
    cluster: Cluster = field(default_factory=Cluster)
    alone: bool = False
    paused: bool | None = None
