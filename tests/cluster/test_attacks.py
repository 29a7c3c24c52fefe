"""A stranger who reaches every port of the nodes, and accounts on a node, try to get in; each attempt did before."""

from __future__ import annotations

import base64
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foundry import run
from foundry.lab.cluster import Cluster
from foundry.lab.plan import CLIENT, NETWORK
from patroni_node import authority
from patroni_node.authority import Member
from patroni_node.derivation import Derived, derive
from tests.cluster.attempts import AGENT, CONFIG, REST, requests_of
from tests.cluster.trial import SQL, trial
from tests.pipeline.harness import until

ATTACKER = Path(__file__).with_name("attacker.py")
MEMBER, OTHER = "pg-srv1", "pg-srv2"
# What holds a secret of the cluster, cloud-init's copies included; only root reads any, or who needs it.
SECRETS = (
    "/etc/patroni/node.yml", "/etc/patroni/patroni.yml", "/etc/patroni/tls/node.key", "/etc/consul.d/patroni-node.json",
    "/etc/consul.d/patroni-node-key.pem", "/etc/consul.d/patroni-node-token", "/var/lib/consul/raft/raft.db",
    "/var/lib/consul/serf/local.keyring", "/var/lib/cloud/instance/user-data.txt",
    "/var/lib/cloud/instance/user-data.txt.i", "/var/lib/cloud/instance/cloud-config.txt",
    "/var/lib/cloud/instance/obj.pkl", "/var/lib/cloud/seed/nocloud/user-data",
    "/run/cloud-init/instance-data-sensitive.json",
    "/var/lib/postgresql/15/main/postgresql.conf", "/var/lib/postgresql/15/.pgpass",
)  # fmt: skip


@dataclass(frozen=True)
class Stranger:
    """What somebody has who is not one of the cluster: a machine on its network, and certificates that are not its.

    pairs: files of a certificate and its key. legitimate: a member's, and what the key derives, for half of a proof.
    """

    cluster: Cluster
    pairs: Mapping[str, list[str]]
    legitimate: list[str]
    derived: Derived
    before: str

    @property
    def hosts(self) -> list[str]:
        return [node.address for node in self.cluster.nodes.values()]

    @property
    def payload(self) -> str:
        """A configuration of the cluster that runs a program on every member; %s: who wrote it."""
        wanted = json.loads(self.before)
        wanted["postgresql"]["callbacks"] = {"on_reload": '/bin/sh -c "id >/tmp/owned-%s"'}
        wanted["postgresql"]["parameters"]["log_min_messages"] = "notice"
        return json.dumps(wanted)

    def from_network(self, **what: Any) -> dict[str, Any]:
        """What came of it on another machine."""
        enter = self.cluster.network.join(f"{CLIENT}/{NETWORK.prefixlen}")
        found = run.run([*enter, sys.executable, ATTACKER, json.dumps(what)], name="attacker", on_line=None)
        return dict(json.loads(found.output))

    def on_node(self, account: str, **what: Any) -> dict[str, Any]:
        """What came of it on a node, as an account there."""
        text = base64.b64encode(ATTACKER.read_bytes()).decode()
        command = f"sudo -u {account} python3 - {shlex.quote(json.dumps(what))}"
        machine = self.cluster.machines[MEMBER]
        return dict(json.loads(machine.ssh(f"cd / && echo {text} | base64 -d | {command}", timeout=120).output))

    def left_no_trace(self) -> bool:
        """Whether the cluster is what it was: its configuration, its members, and no program has run."""
        look = "sudo consul members | tail -n +2; sudo consul kv get -keys -recurse stranger"

        def members() -> tuple[bool, object]:
            found = [line.split() for line in self.cluster.machines[MEMBER].ssh(look).output.splitlines()]
            alive = sorted(words[0] for words in found if words[2:3] == ["alive"])
            return alive == sorted(self.cluster.nodes) and len(alive) == len(found), found

        # The servers may elect anew once an agent has come back.
        until(members, "the cluster's own members, and nobody else", 30)
        assert configuration(self.cluster) == self.before
        for node in self.cluster.machines.values():
            assert node.ssh("ls /tmp | grep owned", check=False).output == ""
        return True


def configuration(cluster: Cluster) -> str:
    """The dynamic configuration, as root may read it."""
    return cluster.machines[MEMBER].ssh(f"sudo consul kv get {CONFIG}").output


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture
def stranger(cluster: Cluster, certificates: Path) -> Iterator[Stranger]:
    plan = cluster.plan
    derived = derive(plan.key, plan.cluster, 2 if plan.tls else 1)
    real = derive(plan.key, plan.cluster, 2)
    own, other = real.consul_authority, derive("the key of another cluster", plan.cluster, 2).consul_authority
    assert real.authority and own and other
    now = datetime.now(UTC)
    # What each was issued by, for which cluster, and when.
    kinds = {
        "another authority": (other, "other-cluster", now),
        "an authority of the same name": (other, plan.cluster, now),
        "one that has expired": (own, plan.cluster, now - 2 * authority.LIFETIME),
        "one that has expired, of PostgreSQL's authority": (real.authority, plan.cluster, now - 2 * authority.LIFETIME),
        "legitimate": (real.authority, plan.cluster, now),
    }
    pairs = {}
    for name, (material, of, moment) in kinds.items():
        folder = certificates / f"{cluster.folder.name} {name}"
        if not folder.exists():
            folder.mkdir()
            who = Member(of, MEMBER, cluster.nodes[MEMBER].address, ("server.dc1.consul",))
            made = authority.certify(material, who, None, moment, timedelta())
            assert made.certificate and made.key
            (folder / "certificate").write_text(made.certificate)
            (folder / "key").write_text(made.key)
        pairs[name] = [str(folder / "certificate"), str(folder / "key")]
    legitimate = pairs.pop("legitimate")
    found = Stranger(cluster, pairs, legitimate, derived, configuration(cluster))
    yield found
    assert found.left_no_trace()


def inside(found: Mapping[str, str]) -> dict[str, str]:
    """The attempts that got in."""
    return {name: outcome for name, outcome in found.items() if not outcome.startswith(("refused", "sent"))}


def test_a_machine_on_the_network_gets_nothing_from_consul(stranger: Stranger) -> None:
    """RPC, Raft, snapshots and gossip, in plain, in TLS, and with certificates of others: findings 1, 5, 11 and 14."""
    arguments = {"pairs": stranger.pairs, "key": CONFIG, "payload": stranger.payload}
    found = stranger.from_network(store={"hosts": stranger.hosts, **arguments})["store"]
    assert len(found) > 100
    assert inside(found) == {}


def test_nobody_appends_to_the_log_of_the_store(stranger: Stranger) -> None:
    """Raft asks for no token (finding 5), so there TLS is all that holds."""
    arguments = {"pairs": stranger.pairs, "key": CONFIG, "payload": stranger.payload}
    found = stranger.from_network(raft={"hosts": stranger.hosts, **arguments})["raft"]
    assert inside(found) == {}


def test_patroni_changes_nothing_without_both_password_and_certificate(stranger: Stranger) -> None:
    password = base64.b64encode(f"patroni:{stranger.derived.passwords['restapi']}".encode()).decode()
    ways: dict[str, dict[str, Any]] = {
        "http": {},
        "http, with the password": {"headers": {"Authorization": f"Basic {password}"}},
        "no certificate": {"tls": []},
        "the password and no certificate": {"tls": [], "headers": {"Authorization": f"Basic {password}"}},
        "a certificate and no password": {"tls": stranger.legitimate},
        "a certificate and a wrong password": {
            "tls": stranger.legitimate, "headers": {"Authorization": "Basic cGF0cm9uaTpwYXRyb25p"}
        },
    }  # fmt: skip
    for name, pair in stranger.pairs.items():
        ways[name] = {"tls": pair, "headers": {"Authorization": f"Basic {password}"}}
    payload, host = stranger.payload % "rest", stranger.hosts[0]
    wanted = requests_of((("GET", "/config", None),), "", MEMBER, OTHER, host, 8008)
    for name, way in ways.items():
        asked = requests_of(REST, payload, MEMBER, OTHER, host, 8008, **way)
        wanted += [{**one, "name": f"{name}: {one['name']}"} for one in asked]
    found = stranger.from_network(requests={"wanted": wanted})["requests"]
    assert len(found) == 1 + len(ways) * len(REST)
    assert inside(found) == {}


def test_postgresql_speaks_tls_only_and_takes_no_certificate_of_others(stranger: Stranger) -> None:
    ways = {"without TLS": None, **stranger.pairs}
    wanted = [
        {"name": f"{host} {name}", "host": host, "tls": pair} for host in stranger.hosts for name, pair in ways.items()
    ]
    assert inside(stranger.from_network(connections={"wanted": wanted})["connections"]) == {}
    # With TLS it asks for the password, as it shall.
    good = [{"name": "TLS", "host": stranger.hosts[0], "tls": []}]
    assert inside(stranger.from_network(connections={"wanted": good})["connections"]) != {}


def test_an_account_on_a_node_gets_nothing(stranger: Stranger) -> None:
    """By the agent's HTTP and by each node's RPC (finding 4), and from files: but names, which are for all."""
    wanted = requests_of(AGENT, stranger.payload % "http", MEMBER, OTHER, "127.0.0.1", 8500)
    found = stranger.on_node(
        "nobody",
        requests={"wanted": wanted},
        store={"hosts": stranger.hosts, "pairs": {}, "key": CONFIG, "payload": stranger.payload},
        read_files={"paths": SECRETS},
    )
    leader = stranger.cluster.leader()
    assert leader is not None

    def resolves() -> tuple[bool, object]:
        name = f"master.{stranger.cluster.plan.cluster}.service.consul"
        answer = stranger.on_node("nobody", resolve={"name": name})["resolve"]
        return answer == stranger.cluster.nodes[leader].address, answer

    # Consul names what its check has found well, and looks for the first time seconds after Patroni has told it.
    until(resolves, "the leader has a name", 20)
    assert {what: inside(outcomes) for what, outcomes in found.items()} == {
        "requests": {},
        "store": {},
        "read_files": {},
    }


def test_no_secret_of_the_cluster_lies_where_everybody_reads(stranger: Stranger) -> None:
    machine = stranger.cluster.machines[MEMBER]
    derived = stranger.derived
    secrets = [stranger.cluster.plan.key, derived.gossip, *derived.passwords.values()]
    secrets += [text for text in (derived.management, derived.agent) if text]
    patterns = base64.b64encode("\n".join(secrets).encode()).decode()
    places = "/etc /run /tmp /home /root /var /usr/local /dev/shm /proc/[0-9]*/environ /proc/[0-9]*/cmdline"
    # Through a pipe, or it would find itself in the list of processes.
    look = f"cd / && echo {patterns} | base64 -d | sudo -u {{}} grep -rlsFf - {places}"
    assert machine.ssh(look.format("nobody"), check=False).output == ""
    # It does find, where it may read.
    assert "/etc/patroni/node.yml" in machine.ssh(look.format("root"), check=False).output


def test_code_in_the_database_gets_neither_the_key_nor_the_rules_of_the_store(stranger: Stranger) -> None:
    """What the account postgres has is Patroni's: the REST API's password and certificate, and its token."""
    own = {"this node's": ["/etc/patroni/tls/node.pem", "/etc/patroni/tls/node.key"]}
    arguments = {"hosts": stranger.hosts, "pairs": own, "key": CONFIG, "payload": stranger.payload}
    found = stranger.on_node("postgres", read_files={"paths": SECRETS}, store=arguments, raft=arguments)
    assert inside({**found["store"], **found["raft"]}) == {}
    its_own = {"/etc/patroni/patroni.yml", "/etc/patroni/tls/node.key"}
    its_own |= {path for path in SECRETS if path.startswith("/var/lib/postgresql/")}
    assert inside(found["read_files"]).keys() <= its_own
    shown = stranger.cluster.machines[MEMBER].ssh("sudo cat /etc/patroni/patroni.yml").output
    assert stranger.cluster.plan.key not in shown
    assert str(stranger.derived.management) not in shown


def test_a_key_that_postgres_has_planted_opens_no_ssh(stranger: Stranger) -> None:
    """Code in the database came back by it without NoNewPrivileges, and from any machine that reaches sshd."""
    machine = stranger.cluster.machines[MEMBER]
    ssh = "ssh -n -i .ssh/own -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    plant = "ssh-keygen -q -t ed25519 -N '' -f .ssh/own; cp .ssh/own.pub .ssh/authorized_keys"
    tried = f"cd; mkdir -m 0700 .ssh; {plant}; {ssh} postgres@127.0.0.1 id; rm -r .ssh"
    said = machine.ssh(f"sudo -u postgres sh -c {shlex.quote(tried)} 2>&1").output
    assert "Permission denied (publickey)" in said and "uid=" not in said


# Takes the agent's port as soon as it is free, and keeps it while Patroni and patroni-node-acl.service ask there.
_STAND_IN = """
import json, socket, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
end, taken, heard = time.monotonic() + 20, False, []
while not taken and time.monotonic() < end:
    try:
        listener.bind(("127.0.0.1", 8500))
        taken = True
    except OSError:
        time.sleep(0.001)
listener.listen(64)
end = time.monotonic() + 5
while (left := end - time.monotonic()) > 0:
    listener.settimeout(left)
    try:
        with listener.accept()[0] as connection:
            connection.settimeout(1)
            heard.append(connection.recv(4096).decode(errors="replace"))
    except OSError:
        pass
print(json.dumps({"taken": taken, "heard": heard}))
"""


def test_no_account_stands_in_for_the_store_while_it_is_down(stranger: Stranger) -> None:
    """It was told the management token, and what it answers Patroni is the cluster's configuration."""
    cluster = stranger.cluster
    name = next(m.name for m in cluster.members() if m.role != "leader")
    text = base64.b64encode(_STAND_IN.encode()).decode()
    command = f"cd / && (echo {text} | base64 -d | sudo -u nobody python3 -) & sudo systemctl restart consul; wait"
    found = json.loads(cluster.machines[name].ssh(command, timeout=120).output.splitlines()[-1])
    assert found == {"taken": True, "heard": []}

    def answers() -> tuple[bool, object]:
        said = cluster.machines[name].ssh("sudo consul operator raft list-peers", check=False).output
        return said.count("true") == len(cluster.nodes), said

    until(answers, "the agent, once its port is free", 60)


# The certificate of half a month ago, as a node has it whose timer did not run.
_AGED = """sudo python3 -c '
import sys; sys.path[:0] = ["/usr/share/patroni-node", "/usr/lib/python3/dist-packages"]
from datetime import UTC, datetime, timedelta
from patroni_node.decide import Machine
from patroni_node.paths import Paths
from patroni_node.renew import renew
print(len(renew(Paths(), Machine(now=lambda: datetime.now(UTC) - timedelta(days=15)))))
'"""
_SESSIONS = "SELECT pid, backend_start FROM pg_stat_activity WHERE backend_type IN ($$client backend$$, $$walsender$$)"


def test_a_certificate_is_replaced_at_every_port_while_clients_write(cluster: Cluster, certificates: Path) -> None:
    """Nobody is disconnected, and nobody goes on with the old one."""
    some = Stranger(cluster, {}, [], derive(cluster.plan.key, cluster.plan.cluster, 2), "")
    with trial(cluster, "renewal", synchronous=True) as seen:
        node = cluster.nodes[seen.leader]
        sessions = set(seen.on(seen.leader, f"{SQL} '{_SESSIONS} AND query !~ $$pg_stat_activity$$'").splitlines())
        shown = [some.from_network(certificates={"host": node.address})["certificates"]]
        assert "" not in shown[0].values()
        for command in (_AGED, "sudo systemctl start patroni-node-renew.service"):
            seen.on(seen.leader, command)
            last = dict(shown[-1])

            def look(last: Mapping[str, str] = last) -> tuple[bool, object]:
                found = some.from_network(certificates={"host": node.address})["certificates"]
                return all(found[port] not in ("", last[port]) for port in last), found

            shown.append(until(look, "another certificate at each port", 30))
            # Consul's is of an authority of its own.
            assert shown[-1]["5432"] == shown[-1]["8008"] != shown[-1]["8300"]
            seen.writes_go_on()
        left = set(seen.on(seen.leader, f"{SQL} '{_SESSIONS}'").splitlines())
        assert sessions <= left
    assert [led.member for led in seen.judgement.leaderships] == [seen.leader]
