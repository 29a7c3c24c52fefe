"""What node.yml means: frozen values that passed every check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from patroni_node.dcs import Consul, Dcs
from patroni_node.document import Document
from patroni_node.hardware import Hardware
from patroni_node.network import IP, AddressChoice, Network
from patroni_node.secret import Secrets
from patroni_node.sources import Source
from patroni_node.tls import TlsSources
from patroni_node.tuning import Wishes


@dataclass(frozen=True)
class PgBackRest:
    """pgBackRest's repository; options are further ones of its [global] section."""

    repository: str = "/var/lib/pgbackrest"
    stanza: str = ""
    retention: int = 2
    create_replica: bool = True
    options: Mapping[str, str | int | bool] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Settings:
    """A node.yml that passed every check; its repr shows no secret.

    secrets: by purpose, the names of the keys of `secrets:`. tls: None where nothing is said of it. compatibility: the
    version of security.py that the cluster is said to have. tuning: None where it is switched off. restart: Restart= of
    patroni.service (systemd.service(5)). document: for problems that show only on the node.
    """

    cluster: str
    secrets: Mapping[str, Source]
    name: str | None = None
    address: AddressChoice = field(default_factory=AddressChoice)
    networks: tuple[Network, ...] = ()
    dcs: Dcs = field(default_factory=Consul)
    tls: TlsSources | Literal["auto", "off"] | None = None
    compatibility: int | None = None
    tuning: Wishes | None = field(default_factory=Wishes)
    watchdog: str = "automatic"
    restart: str = "on-failure"
    tags: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Mapping[str, str] = field(default_factory=dict)
    archive: PgBackRest | None = None
    patroni: Mapping[str, Any] = field(default_factory=dict, repr=False)
    document: Document = field(default_factory=Document, repr=False, compare=False)


@dataclass(frozen=True)
class Node:
    """All that a node's files are made of: what node.yml says, and what was found on the machine.

    version: of the cluster's protection (security.py). tls: whether PostgreSQL and the REST API have certificates.
    dcs_certificate: whether there is one to show to the store.
    """

    settings: Settings
    name: str
    address: IP
    secrets: Secrets
    hardware: Hardware
    version: int = 2
    tls: bool = False
    dcs_certificate: bool = False
