"""What this node's files shall be: everything read and checked, nothing written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from patroni_node import (
    archive,
    authority,
    certificates,
    derivation,
    hardware,
    identity,
    neighbours,
    network,
    packet_filter,
    render,
    secret,
    security,
    settings,
    tls,
)
from patroni_node.authority import Certify, Member
from patroni_node.certificates import Pems
from patroni_node.dcs import Consul
from patroni_node.errors import AddressAbsentError, NodeError
from patroni_node.identity import Identity
from patroni_node.install import Accounts, NoAccounts, SystemAccounts, Target
from patroni_node.model import Node, Settings
from patroni_node.neighbours import Fetch
from patroni_node.network import IP, AddressChoice, RunIp
from patroni_node.paths import Paths
from patroni_node.security import Look
from patroni_node.sources import Reader
from patroni_node.tls import RunOpenssl, Tls

POLL_SECONDS = 0.5
RESTART = "on-failure"
"""What patroni.service says by itself."""


@dataclass(frozen=True)
class Machine:
    """The parts of the machine that tests replace."""

    run_ip: RunIp = network.run_ip
    run_openssl: RunOpenssl = tls.run_openssl
    certify: Certify = authority.certify
    look: Look = security.look
    fetch: Fetch = neighbours.fetch
    reload_units: Callable[[], None] | None = None
    host_name: str | None = None
    accounts: Accounts | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def owners(self, paths: Paths) -> Accounts:
        """Return who may own files below these paths."""
        return self.accounts or (SystemAccounts() if paths.live else NoAccounts())


@dataclass(frozen=True)
class Decision:
    """A node.yml that was accepted, and what it makes of this machine.

    version: of its cluster's protection (security.py). certificates: of PostgreSQL and the REST API. targets: every
    file that may be there, those that shall not be included.
    """

    settings: Settings
    who: Identity
    address: IP
    version: int
    certificates: Tls | None = field(repr=False)
    targets: list[Target]


def decide(
    paths: Paths,
    machine: Machine,
    wait: float = 0.0,
    *,
    ask: bool = False,
    version: int | None = None,
    before: timedelta = authority.LATE,
) -> Decision:
    """Read node.yml and the machine, and decide what the node's files shall be.

    Args:
        paths: where everything is.
        machine: for tests.
        wait: seconds to wait for an address that is not there yet.
        ask: whether other members are asked what protects the cluster, where nothing here says so.
        version: of the cluster's protection, in place of the one that it has.
        before: how long before its end a certificate of the cluster's own authority is to be replaced.

    Raises:
        NodeError: with every problem.
    """
    wanted = settings.load(paths)
    who = identity.resolve(paths, wanted.name, machine.host_name)
    own = _address(wanted.address, paths, machine, wait)
    reader = Reader(paths, wanted.document.problem)
    given = secret.read_given(wanted.secrets, reader)
    if version is None:
        version = _version(paths, wanted, own, given, machine) if ask else security.read(paths) or security.NEWEST
    secrets = secret.collect(
        wanted.secrets, given, wanted.cluster, reader, own_store=_is_server(wanted), version=version
    )
    member = Member(wanted.cluster, who.name, str(own))
    pems = certificates.read_given(wanted, reader, own, machine.run_openssl)
    if version > 1:
        now = machine.now()

        def issue(material: bytes, member: Member, present: Tls | None) -> Tls:
            return machine.certify(material, member, present, now, before)

        pems = certificates.add_own(paths, wanted, member, secrets, pems, issue)
    node = Node(
        settings=wanted,
        name=who.name,
        address=own,
        secrets=secrets,
        hardware=hardware.read(paths.root),
        version=version,
        tls=pems.own is not None,
        dcs_certificate=pems.dcs is not None and pems.dcs.certificate is not None,
    )
    files = render.render(node)
    if files.consul_json is not None:
        _require_consul(machine.owners(paths))
    archive.require(wanted, paths)
    targets = [
        Target(paths.patroni_yml, files.patroni_yml.encode(), 0o640, "root", "postgres"),
        *_consul_targets(paths, files, pems, secrets, version),
        *_filter_targets(paths, node, files, machine.owners(paths)),
        *_tls_targets(paths, wanted, pems),
        *_archive_targets(paths, wanted),
        _text(paths.huge_pages, files.huge_pages, 0o644),
        _restart_target(paths, wanted.restart),
        Target(paths.security, security.to_json(version), 0o644),
        Target(paths.identity, who.to_json(), 0o644),
    ]
    return Decision(wanted, who, own, version, pems.own, targets)


def _is_server(wanted: Settings) -> bool:
    return isinstance(wanted.dcs, Consul) and wanted.dcs.mode == "server"


def _version(paths: Paths, wanted: Settings, own: IP, given: Mapping[str, str], machine: Machine) -> int:
    password = None
    # A given one is the same in both versions: a member of today would prove it too, to whoever relays the question.
    if secret.KEY in given and "replication" not in given:
        password = derivation.derive(given[secret.KEY], wanted.cluster, 1).passwords["replication"]
    return security.resolve(paths, wanted, own, password, machine.look)


def _consul_targets(
    paths: Paths, files: render.Rendered, pems: Pems, secrets: secret.Secrets, version: int
) -> list[Target]:
    """Consul's files; without an agent on this node, none of an earlier configuration may start one."""
    here = files.consul_json is not None
    dcs = pems.dcs if pems.dcs is not None and here else certificates.NONE
    token = secrets.consul_management if here and version > 1 else None
    checks = pems.own.ca if pems.own is not None and here and version > 1 else None
    return [
        _text(paths.consul_json, files.consul_json, 0o640, "consul"),
        _text(paths.consul_ca, certificates.trusted_by_consul(pems, version) if here else None, 0o644),
        _text(paths.consul_certificate, dcs.certificate, 0o644),
        _text(paths.consul_key, dcs.key, 0o640, "consul"),
        _text(paths.consul_token, f"{token}\n" if token else None, 0o600),
        _text(paths.consul_checks_ca, checks, 0o644),
    ]


def _filter_targets(paths: Paths, node: Node, files: render.Rendered, accounts: Accounts) -> list[Target]:
    script: str | None = None
    drop_in: str | None = None
    if node.version > 1:
        script, drop_in = packet_filter.for_node(
            node.settings,
            render.permitted(node.settings, node.address),
            node.address,
            yaml.safe_load(files.patroni_yml),
            gossip_key=node.secrets.gossip is not None,
            agent=_number(accounts, "consul") if files.consul_json is not None else None,
            database=_number(accounts, "postgres"),
        )
    return [_text(paths.packet_filter, script, 0o644), _text(paths.consul_drop_in, drop_in, 0o644)]


def _number(accounts: Accounts, name: str) -> int | None:
    """The number of an account; one that is missing is said where a file is to be given to it."""
    try:
        found = accounts.ids(name, name)
    except KeyError:
        return None
    return found[0] if found else None


def _tls_targets(paths: Paths, wanted: Settings, pems: Pems) -> list[Target]:
    local_agent = isinstance(wanted.dcs, Consul) and wanted.dcs.local
    dcs = pems.dcs if pems.dcs is not None and not local_agent else certificates.NONE
    own = pems.own or certificates.NONE
    return [
        _text(paths.tls / "ca.pem", own.ca or None, 0o644),
        _text(paths.tls / "node.pem", own.certificate, 0o644),
        _text(paths.tls / "node.key", own.key, 0o640, "postgres"),
        _text(paths.tls / "dcs-ca.pem", dcs.ca or None, 0o644),
        _text(paths.tls / "dcs.pem", dcs.certificate, 0o644),
        _text(paths.tls / "dcs.key", dcs.key, 0o640, "postgres"),
    ]


def _archive_targets(paths: Paths, wanted: Settings) -> list[Target]:
    if wanted.archive is None:
        return [Target(path, None) for path in (paths.pgbackrest_conf, paths.stanza) if archive.ours(paths)]
    return [
        # Its options may hold the repository's keys.
        _text(paths.pgbackrest_conf, archive.configuration(wanted.archive), 0o640, "postgres"),
        _text(paths.stanza, f"{wanted.archive.stanza}\n", 0o644),
    ]


def _text(path: Path, text: str | None, mode: int, group: str = "root") -> Target:
    return Target(path, None if text is None else text.encode(), mode, "root", group)


def _restart_target(paths: Paths, restart: str) -> Target:
    text = f"# Written by patroni-node from `restart:` of node.yml.\n[Service]\nRestart={restart}\n"
    return _text(paths.restart_drop_in, None if restart == RESTART else text, 0o644)


def _address(choice: AddressChoice, paths: Paths, machine: Machine, wait: float) -> IP:
    """Choose the address, giving DHCP and IPv6's duplicate address detection time to finish."""
    deadline = machine.clock() + wait
    while True:
        try:
            return network.choose(choice, network.read_host(machine.run_ip), str(paths.node_file))
        except AddressAbsentError:
            if machine.clock() >= deadline:
                raise
        machine.sleep(POLL_SECONDS)


def _require_consul(accounts: Accounts) -> None:
    try:
        accounts.ids("consul", "consul")
    except KeyError:
        message = "Consul is not installed (no user consul): apt install the consul .deb delivered beside this package"
        raise NodeError(message) from None
