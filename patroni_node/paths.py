"""Every path that patroni-node reads or writes, below one root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

POSTGRESQL_MAJOR = 15

_SHARE = Path(__file__).resolve().parent.parent
"""/usr/share/patroni-node when installed, the repository's root in a work tree."""


@dataclass(frozen=True)
class Paths:
    """Where things are: `root` is / on a node and a scratch folder in tests."""

    root: Path = Path("/")
    node_file_override: Path | None = None

    @property
    def live(self) -> bool:
        """True on the node itself, where accounts exist and owners are set."""
        return self.root == Path("/")

    @property
    def node_file(self) -> Path:
        return self.node_file_override or self.root / "etc/patroni/node.yml"

    @property
    def drop_ins(self) -> Path:
        """The folder whose *.yml merge after the node file: node.d beside it."""
        return self.node_file.with_name("node.d")

    @property
    def patroni_yml(self) -> Path:
        return self.root / "etc/patroni/patroni.yml"

    @property
    def consul_json(self) -> Path:
        return self.root / "etc/consul.d/patroni-node.json"

    @property
    def consul_data(self) -> Path:
        """Consul's own state: its node-id, what it knows of the others, a server's part of the store."""
        return self.root / "var/lib/consul"

    @property
    def set_aside(self) -> Path:
        """Where Consul's state of the machine that this one was cloned from is kept."""
        return self.root / "var/lib/patroni-node/consul-before-clone"

    @property
    def consul_ca(self) -> Path:
        """Consul reads only *.json and *.hcl of its folder as configuration."""
        return self.root / "etc/consul.d/patroni-node-ca.pem"

    @property
    def consul_checks_ca(self) -> Path:
        """Whom Consul's health checks of this node believe: SSL_CERT_FILE of consul.service."""
        return self.root / "etc/consul.d/patroni-node-checks-ca.pem"

    @property
    def consul_certificate(self) -> Path:
        return self.root / "etc/consul.d/patroni-node-cert.pem"

    @property
    def consul_key(self) -> Path:
        return self.root / "etc/consul.d/patroni-node-key.pem"

    @property
    def consul_token(self) -> Path:
        """Consul's management token, which /usr/sbin/consul gives to root's `consul`."""
        return self.root / "etc/consul.d/patroni-node-token"

    @property
    def tls(self) -> Path:
        """The certificates of PostgreSQL and of the REST API, and dcs-*.pem, which Patroni shows to the store."""
        return self.root / "etc/patroni/tls"

    @property
    def pgbackrest_conf(self) -> Path:
        """pgBackRest reads it instead of Debian's /etc/pgbackrest.conf (pgbackrest(1), config)."""
        return self.root / "etc/pgbackrest/pgbackrest.conf"

    @property
    def stanza(self) -> Path:
        """Holds the name of pgBackRest's stanza where node.yml asks for an archive; the backup units look for it."""
        return self.root / "var/lib/patroni-node/stanza"

    @property
    def huge_pages(self) -> Path:
        """How many huge pages the kernel sets aside, where that is worth it (sysctl.d(5))."""
        return self.root / "etc/sysctl.d/61-patroni-node-huge-pages.conf"

    @property
    def packet_filter(self) -> Path:
        """Who may connect, for nft(8): patroni-node.service loads it at its end."""
        return self.root / "var/lib/patroni-node/packet-filter.nft"

    @property
    def consul_drop_in(self) -> Path:
        """The addresses that systemd lets consul.service talk to."""
        return self.root / "etc/systemd/system/consul.service.d/50-patroni-node.conf"

    @property
    def restart_drop_in(self) -> Path:
        """`restart:` of node.yml, where it is not what patroni.service says."""
        return self.root / "etc/systemd/system/patroni.service.d/50-patroni-node.conf"

    @property
    def credentials(self) -> tuple[Path, ...]:
        """Where systemd puts credentials: those of patroni-node.service, then the machine's (systemd.exec(5))."""
        own = os.environ.get("CREDENTIALS_DIRECTORY") if self.live else None
        # Of the unit as root sees them from outside, while it is active.
        unit = Path(own) if own else self.root / "run/credentials/patroni-node.service"
        return unit, self.root / "run/credentials/@system"

    @property
    def identity(self) -> Path:
        return self.root / "var/lib/patroni-node/identity.json"

    @property
    def security(self) -> Path:
        """Which version of security.py's the cluster has; a node of before it has none."""
        return self.root / "var/lib/patroni-node/security.json"

    @property
    def data_dir(self) -> Path:
        """PostgreSQL's data, unless `patroni.postgresql.data_dir` says otherwise."""
        return self.root / f"var/lib/postgresql/{POSTGRESQL_MAJOR}/main"

    @property
    def instance_id(self) -> Path:
        """Written by cloud-init before its write_files module runs."""
        return self.root / "var/lib/cloud/data/instance-id"

    @property
    def instance_data(self) -> Path:
        """What cloud-init says of the machine, for everybody: on some clouds user-data, too (CVE-2023-1786)."""
        return self.root / "run/cloud-init/instance-data.json"

    @property
    def machine_id(self) -> Path:
        return self.root / "etc/machine-id"

    @property
    def issue(self) -> Path:
        """agetty shows it above the login prompt (agetty(8), ISSUE FILES)."""
        return self.root / "etc/issue.d/patroni-node.issue"

    @property
    def rendered(self) -> tuple[Path, ...]:
        """Every file that is made from node.yml."""
        tls = [self.tls / name for name in ("ca.pem", "node.pem", "node.key", "dcs-ca.pem", "dcs.pem", "dcs.key")]
        consul = (self.consul_json, self.consul_ca, self.consul_certificate, self.consul_key, self.consul_token)
        archive = (self.pgbackrest_conf, self.stanza)
        access = (self.consul_checks_ca, self.packet_filter, self.consul_drop_in)
        last = (self.huge_pages, self.restart_drop_in, self.security, self.identity)
        return (self.patroni_yml, *consul, *access, *tls, *archive, *last)

    @property
    def ready(self) -> Path:
        """consul.service and patroni.service assert that this file exists."""
        return self.root / "run/patroni-node/ready"


def template_dir() -> Path:
    """Return the folder of templates, laid out as on the target."""
    return _SHARE / "templates" / "etc"


def schema_file() -> Path:
    """Return the JSON Schema of node.yml, beside the package or in the work tree's files/."""
    installed = _SHARE / "node.schema.json"
    return installed if installed.is_file() else _SHARE / "files/usr/share/patroni-node/node.schema.json"
