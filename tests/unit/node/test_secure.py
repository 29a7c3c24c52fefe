"""`patroni-node secure`: the order of its steps, and what is said where one of them does not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any

import pytest
from conftest import MINIMAL, Node
from day_two import CLUSTER, REFUSED, cluster, patroni

from patroni_node import derivation, restart, security
from patroni_node.commands import Ended
from patroni_node.configure import configure
from patroni_node.errors import NodeError, UnavailableError
from patroni_node.rest import Answer, Question
from patroni_node.secure import secure, verifier

JOIN = "dcs: {consul: {join: [10.129.0.21, 10.129.0.22, 10.129.0.23]}}\n"
OWN, SECOND, THIRD = (f"10.129.0.2{n}" for n in (1, 2, 3))


class World:
    """A member of before, and two others; a test says who is done already."""

    def __init__(self, node: Node, role: str = "primary", **state: Any) -> None:
        self.node = node
        node.of_before()
        node.write(MINIMAL + JOIN)
        configure(node.paths, node.machine)
        self.state: dict[str, Any] = {"role": role, **state}
        self.done: dict[str, str] = {}
        self.ran: list[str] = []
        self.said: list[str] = []
        self.fails: dict[str, Ended] = {}
        self.reloaded = False
        self.now = 0.0

    def ask(self, question: Question) -> Answer:
        scheme, _, rest = question.url.partition("://")
        host, _, path = rest.partition(":8008")
        if path == "/cluster":
            return Answer(200, cluster())
        if host == OWN:
            secured = security.read(self.node.paths) == 2 and self.reloaded
            return Answer(200, patroni(**self.state)) if (scheme == "https") == secured else REFUSED
        return Answer(200, patroni(role=self.done[host])) if host in self.done and scheme == "https" else REFUSED

    def run(self, words: list[str], seconds: float, stop: Callable[[], bool]) -> Ended:
        verb = words[3] if words[0] == "patronictl" else "psql" if words[0] == "runuser" else " ".join(words)
        self.ran.append(verb)
        if verb in self.fails:
            return self.fails[verb]
        self.reloaded = self.reloaded or verb == "systemctl reload patroni"
        if verb == "systemctl restart patroni-node":
            configure(self.node.paths, self.node.machine)
        said = {"pause": "Success: cluster management is paused", "resume": "Success: cluster management is resumed"}
        return Ended(0, said.get(verb, ""))

    def feed(self, words: list[str], text: str, seconds: float) -> Ended:
        self.sql = text
        assert not any("SCRAM" in word for word in words), "every account sees the arguments of a process"
        return self.run(words, seconds, lambda: False)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def secure(self) -> None:
        tools = restart.Tools(
            self.node.machine, self.run, self.ask, self.said.append, self.sleep, lambda: self.now, self.feed
        )  # type: ignore[arg-type]
        secure(self.node.paths, wait=20, tools=tools)

    def refused(self, words: str) -> None:
        with pytest.raises(NodeError, match=words):
            self.secure()


SERVICES = ["systemctl restart patroni-node", "systemctl restart consul", "systemctl reload patroni"]
TIMER = "systemctl start patroni-node-renew.timer"


def test_the_leader_comes_first_and_changes_the_passwords(node: Node) -> None:
    world = World(node)
    world.secure()
    assert world.ran == ["pause", *SERVICES, TIMER, "psql"]
    assert f"Next: `patroni-node secure` on {SECOND}, {THIRD}" in world.said[-1]
    assert "maintenance mode" in world.said[-1]
    assert security.read(node.paths) == 2
    wanted = derivation.derive("kJ8sd7f6Qw3rTy0pLmN2", CLUSTER, 2).passwords
    found = dict(re.findall(r"ALTER ROLE \"(\w+)\" PASSWORD '([^']+)'", world.sql))
    assert set(found) == {"postgres", "replicator", "rewind"}
    assert not any(password in world.sql for password in wanted.values()), "it would be in PostgreSQL's log"
    for user, purpose in (("postgres", "superuser"), ("replicator", "replication"), ("rewind", "rewind")):
        salt = base64.b64decode(found[user].split("$")[1].partition(":")[2])
        assert found[user] == verifier(wanted[purpose], salt)


def test_consul_takes_the_new_gossip_key(node: Node) -> None:
    """It has an old one in a file of its own, which would win."""
    world = World(node)
    keyring = node.paths.consul_data / "serf/local.keyring"
    keyring.parent.mkdir(parents=True)
    keyring.write_text("[old]")
    world.secure()
    assert not keyring.exists()
    assert keyring.with_suffix(".keyring.before").read_text() == "[old]"


def test_a_verifier_is_what_postgresql_makes_of_it() -> None:
    """RFC 7677, section 3: the exchange of its example, checked with the keys of this verifier."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    kind, iterations, keys = verifier("pencil", salt).split("$")
    assert (kind, iterations) == ("SCRAM-SHA-256", "4096:W22ZaJ0SNY7soEsUEjb6gQ==")
    stored, server = (base64.b64decode(key) for key in keys.split(":"))
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(server, message, "sha256")
    assert base64.b64encode(signature).decode() == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, message, "sha256"), strict=True))
    assert hashlib.sha256(client).digest() == stored


def test_a_replica_waits_for_the_leader(node: Node) -> None:
    world = World(node, "replica", replication_state="streaming")
    world.refused(r"the leader \(pg-srv1\) comes first: run `patroni-node secure` there; nothing was changed here")
    world.done = {THIRD: "replica"}
    world.refused("comes first")
    assert world.ran == []
    assert security.read(node.paths) == 1


def test_the_last_one_resumes(node: Node) -> None:
    world = World(node, "replica", replication_state="streaming", pause=True)
    world.done = {SECOND: "primary"}
    world.secure()
    assert world.ran == [*SERVICES, TIMER]
    assert f"`patroni-node secure` on {THIRD}" in world.said[-1]
    node.paths.security.write_bytes(security.to_json(1))
    again = World(node, "replica", replication_state="streaming", pause=True)
    again.done = {SECOND: "primary", THIRD: "replica"}
    again.secure()
    assert again.ran == [*SERVICES, TIMER, "resume"]
    assert again.said[-1] == f"done: all members of cluster {CLUSTER} have the protection of today"


def test_twice_is_once(node: Node) -> None:
    world = World(node)
    world.secure()
    world.ran.clear()
    world.secure()
    assert world.ran == []


def test_a_run_that_failed_is_gone_on_with(node: Node) -> None:
    """Else the leader's roles kept their old passwords, and no replica streamed again."""
    world = World(node)
    world.fails["psql"] = Ended(1, "no")
    world.refused("the passwords were not changed")
    world.ran.clear()
    world.fails.clear()
    world.state["pause"] = True
    world.secure()
    assert world.ran == ["psql"]
    assert f"`patroni-node secure` on {SECOND}, {THIRD}" in world.said[-1]


def test_a_key_that_can_be_guessed_has_to_be_changed_first(node: Node) -> None:
    world = World(node)
    node.write(MINIMAL.replace("kJ8sd7f6Qw3rTy0pLmN2", "Winter2026!Winter2026!") + JOIN)
    world.refused("can be guessed(.|\n)*nothing was changed")
    assert world.ran == []


def test_a_node_that_says_it_stays_is_asked_first(node: Node) -> None:
    world = World(node)
    node.write(MINIMAL + JOIN + "compatibility: 1\n")
    world.refused("compatibility: says that it stays: remove it first")


def test_what_is_refused_at_configuring_is_taken_back(node: Node) -> None:
    world = World(node)
    world.fails["systemctl restart patroni-node"] = Ended(1, "Job failed")
    world.refused(f"it is as it was, and the cluster is in maintenance mode: run `patronictl .* resume {CLUSTER}`")
    assert security.read(node.paths) == 1
    assert world.ran == ["pause", *["systemctl restart patroni-node"] * 2]


@pytest.mark.parametrize("step", ["systemctl restart consul", "systemctl reload patroni"])
def test_a_service_that_does_not_start_is_named(node: Node, step: str) -> None:
    world = World(node)
    world.fails[step] = Ended(1, "Job failed")
    world.refused(f"`{step}` failed .* in maintenance mode: mend it, run that again, then `patroni-node secure`")


def test_a_cluster_that_cannot_be_paused_is_left_alone(node: Node) -> None:
    world = World(node)
    world.fails["pause"] = Ended(1, "timed out")
    with pytest.raises(UnavailableError, match=r"could not be paused \(timed out\): nothing was changed"):
        world.secure()
    assert security.read(node.paths) == 1
