"""`patroni-node secure`: bring a member of a cluster of before to the protection of today, while clients go on writing.

The leader comes first, and the cluster is in maintenance mode until the last member is done: the members' Consul
servers of before and of today do not talk to each other, so for a while some members have no store. In maintenance
mode Patroni leaves PostgreSQL as it is then (patroni/ha.py, _handle_dcs_error), and no replica is promoted.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from patroni_node import authority, commands, effective, install, member, rest, security
from patroni_node.commands import PATRONICTL
from patroni_node.dcs import Consul
from patroni_node.decide import Decision, decide
from patroni_node.effective import Effective
from patroni_node.errors import NodeError, Problem, UnavailableError
from patroni_node.install import NoAccounts, Target
from patroni_node.member import Cluster, Member
from patroni_node.network import IP
from patroni_node.paths import Paths
from patroni_node.problems import JOURNAL, resume
from patroni_node.rest import Answer, Question, Trust
from patroni_node.restart import ALREADY_PAUSED, PAUSE_SECONDS, PAUSED, POLL_SECONDS, RESUMED, Signals, Tools

ITERATIONS = 4096
"""PostgreSQL 15's own (src/include/common/scram-common.h, SCRAM_DEFAULT_ITERATIONS)."""
SQL = ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres")
REST_PORT = 8008


def verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL keeps of a password (RFC 5803; PostgreSQL 15, 53.8, pg_authid), so that none is logged.

    The password is ASCII, so SASLprep leaves it as it is.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    spelled = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${ITERATIONS}:{spelled[0]}${spelled[1]}:{spelled[2]}"


@dataclass(frozen=True)
class _Node:
    """This member as it was before. others: addresses of the other members."""

    paths: Paths
    effective: Effective
    decided: Decision
    before: Member
    others: tuple[str, ...] = field(default=())

    @property
    def leads(self) -> bool:
        return self.before.role in ("primary", "master", "standby_leader")


def secure(paths: Paths, *, wait: float, tools: Tools | None = None) -> None:
    """Change this member over, and end maintenance mode if it is the last one.

    Args:
        paths: where everything is.
        wait: the most seconds that each step may take.
        tools: for tests.

    Raises:
        NodeError: node.yml or its secrets are refused for it. UnavailableError: the member is in no state for it, the
        leader is not done yet, or a step failed; what to run is said, and whether maintenance mode is on.
    """
    tools = tools or Tools()
    with Signals() as signals:
        begun = security.read(paths) == security.NEWEST
        node = _preflight(paths, tools)
        if begun and not node.before.paused:
            tools.say("this node has the protection of today: nothing to do")
            return
        work = _Work(node, tools, wait)
        signals.check()
        # From here to the end no signal is looked at: half a change is no state to leave a node in.
        if not begun:
            work.pause()
            work.configure()
            work.restart_services()
        # A run before may have failed here: what follows does no harm twice.
        if node.leads:
            work.change_passwords()
        work.wait_as_before()
        left = work.others_left()
        if left:
            tools.say(
                f"done here. Next: `patroni-node secure` on {', '.join(left)}; cluster {node.effective.cluster} stays"
                " in maintenance mode (no failover) until the last one is done"
            )
            return
        work.resume()
    tools.say(f"done: all members of cluster {node.effective.cluster} have the protection of today")


def _preflight(paths: Paths, tools: Tools) -> _Node:
    """Look whether all is as it must be, and change nothing."""
    try:
        decided = decide(paths, tools.machine, version=security.NEWEST, before=authority.RENEW_BEFORE)
    except NodeError as error:
        message = "nothing was changed: node.yml has to be mended first (on all nodes, where it is the key)"
        raise NodeError([*error.problems, Problem(message)]) from None
    if decided.settings.compatibility is not None:
        raise NodeError(decided.settings.document.problem(("compatibility",), "says that it stays: remove it first"))
    now = effective.read(paths.patroni_yml)
    if now is None or not paths.ready.exists():
        raise UnavailableError("this node was not configured in this boot: run `systemctl start patroni`")
    answers = rest.ask_all(member.questions(now.patroni), tools.ask)()
    own, cluster = member.member(answers[0]), member.cluster(answers[1])
    if not own.runs:
        raise UnavailableError(
            f"PostgreSQL or Patroni does not run here ({own.failure or own.state}): nothing was changed"
        )
    node = _Node(paths, now, decided, own, _others(decided, cluster, now))
    if not node.leads and not any(_is_leader(_ask_secured(node, ip, tools)) for ip in node.others):
        known = f" ({cluster.leader})" if cluster.leader else ""
        raise UnavailableError(
            f"the leader{known} comes first: run `patroni-node secure` there; nothing was changed here"
        )
    tools.say(f"{now.name} of cluster {now.cluster}: {own}")
    return node


def _others(decided: Decision, cluster: Cluster, now: Effective) -> tuple[str, ...]:
    dcs = decided.settings.dcs
    peers: Sequence[IP] = dcs.peers(decided.address) if isinstance(dcs, Consul) and dcs.mode == "server" else ()
    found = [*map(str, peers), *(m.host for m in cluster.members)]
    return tuple(ip for ip in dict.fromkeys(found) if ip and ip not in (str(decided.address), now.address))


def _ask_secured(node: _Node, ip: str, tools: Tools) -> Answer:
    """What a member says over TLS that the cluster's own certificates protect; a failure of one of before."""
    host = f"[{ip}]" if ":" in ip else ip
    certificates = node.decided.certificates
    trust = Trust(ca=certificates.ca) if certificates else None
    return tools.ask(Question(f"{'https' if trust else 'http'}://{host}:{REST_PORT}/patroni", trust))


def _is_leader(answer: Answer) -> bool:
    return member.member(answer).role in ("primary", "master", "standby_leader")


class _Work:
    """The steps."""

    def __init__(self, node: _Node, tools: Tools, wait: float) -> None:
        self.node = node
        self.tools = tools
        self.wait = wait
        self.cluster = node.effective.cluster

    def pause(self) -> None:
        """Put the cluster into maintenance mode, unless the member before has done so."""
        if self.node.before.paused:
            return
        self.tools.say("pause the cluster: nothing fails over until the last member is done")
        done = self.tools.run([*PATRONICTL, "pause", self.cluster, "--wait"], PAUSE_SECONDS, commands.never)
        if PAUSED not in done.output and ALREADY_PAUSED not in done.output:
            raise UnavailableError(f"the cluster could not be paused ({done.last}): nothing was changed")

    def configure(self) -> None:
        """Let patroni-node render everything anew; what it refuses is taken back."""
        self.tools.say("configure this node anew")
        paths = self.node.paths
        install.install([Target(paths.security, security.to_json(security.NEWEST), 0o644)], NoAccounts())
        done = self.tools.run(["systemctl", "restart", "patroni-node"], self.wait, commands.never)
        if done.code != 0:
            install.install([Target(paths.security, security.to_json(1), 0o644)], NoAccounts())
            self.tools.run(["systemctl", "restart", "patroni-node"], self.wait, commands.never)
            raise UnavailableError(
                f"this node could not be configured ({JOURNAL.format('patroni-node')}): it is as it was, and the"
                f" cluster is in maintenance mode: run `{resume(self.cluster)}` to leave it at that"
            )

    def restart_services(self) -> None:
        """Consul starts anew, Patroni reads its file again; PostgreSQL goes on."""
        if self.node.paths.consul_json.exists():
            self._set_keyrings_aside()
            self._systemctl("restart", "consul")
        self._systemctl("reload", "patroni")
        self._systemctl("start", "patroni-node-renew.timer")

    def _set_keyrings_aside(self) -> None:
        """Let Consul take the new gossip key: where there is a keyring, `encrypt` counts for nothing (its manual)."""
        for name in ("local", "remote"):
            keyring = self.node.paths.consul_data / f"serf/{name}.keyring"
            if keyring.exists():
                os.replace(keyring, keyring.with_suffix(".keyring.before"))

    def _systemctl(self, verb: str, unit: str) -> None:
        done = self.tools.run(["systemctl", verb, unit], self.wait, commands.never)
        if done.code != 0:
            raise UnavailableError(
                f"`systemctl {verb} {unit}` failed ({done.first}): {JOURNAL.format(unit)}. The node is configured anew,"
                f" and the cluster is in maintenance mode: mend it, run that again, then `patroni-node secure`, which"
                " goes on from there"
            )

    def change_passwords(self) -> None:
        """Give the leader's roles the passwords that the key derives today."""
        self.tools.say("change the passwords of PostgreSQL's own roles")
        wanted = effective.passwords(self.node.paths.patroni_yml)
        statements = [
            f"ALTER ROLE \"{user}\" PASSWORD '{verifier(password, os.urandom(16))}'"
            for user, password in wanted.items()
        ]
        # By its input: a verifier in an argument is for every account to see, and to try passwords with.
        done = self.tools.feed(SQL, f"BEGIN; {'; '.join(statements)}; COMMIT;\n", self.wait)
        if done.code != 0:
            raise UnavailableError(
                f"the passwords were not changed ({done.last}): replicas could not stream after this"
            )

    def wait_as_before(self) -> None:
        """Wait until Patroni answers in its new way, and the member is what it was."""
        now = effective.read(self.node.paths.patroni_yml)
        if now is None:
            raise UnavailableError(f"{self.node.paths.patroni_yml} cannot be read")
        before, question = self.node.before, now.patroni.question("/patroni")

        def as_before() -> tuple[bool, str]:
            own = member.member(self.tools.ask(question))
            same = (own.state, own.role, own.replication) == (before.state, before.role, before.replication)
            return same, str(own) if own.answers else own.failure

        self._until(f"this member is {before.role} again", as_before)

    def others_left(self) -> list[str]:
        """The addresses of members that are not done yet, or do not answer."""
        return [ip for ip in self.node.others if not member.member(_ask_secured(self.node, ip, self.tools)).answers]

    def resume(self) -> None:
        """End maintenance mode, once the store has a leader for all of them."""
        self.tools.say("resume the cluster")

        def resumed() -> tuple[bool, str]:
            done = self.tools.run([*PATRONICTL, "resume", self.cluster, "--wait"], PAUSE_SECONDS, commands.never)
            return any(words in done.output for words in RESUMED), done.last

        self._until(f"the cluster is resumed (else run `{resume(self.cluster)}`)", resumed)

    def _until(self, what: str, look: Callable[[], tuple[bool, str]]) -> None:
        deadline = self.tools.clock() + self.wait
        while True:
            done, last = look()
            if done:
                return
            if self.tools.clock() >= deadline:
                raise UnavailableError(
                    f"waited {self.wait:.0f} s in vain until {what}; last: {last}. The cluster is in maintenance"
                    f" mode (no failover): {JOURNAL.format('patroni')}; then run `{resume(self.cluster)}`"
                )
            self.tools.sleep(POLL_SECONDS)
