"""`patroni-node restart`: the order of its steps, what it refuses, and that the cluster is resumed whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import MINIMAL, Node
from day_two import CLUSTER, REFUSED, URL, Live, cluster, patroni

from patroni_node import cli, restart
from patroni_node.commands import Ended
from patroni_node.errors import (
    EX_CONFIG,
    EX_OSERR,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    BusyError,
    NodeError,
    StillPausedError,
    UnavailableError,
)
from patroni_node.rest import Answer

PATRONI = "systemctl restart patroni"
ALL = ["pause", PATRONI, "restart", "resume"]


class World(Live):
    """A cluster that does what it is told, and a clock that goes on while somebody waits."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.said: list[str] = []
        self.now = 0.0
        self.state: dict[str, Any] = {}
        self.does = {
            "pause": lambda: self.become("Success: cluster management is paused", pause=True),
            PATRONI: lambda: self.become(""),
            "restart": lambda: self.become("Success: restart on member pg-srv1", postmaster_start_time="later"),
            "resume": lambda: self.become("Success: cluster management is resumed", pause=None),
        }

    def become(self, output: str, **more: Any) -> Ended:
        self.state |= more
        self.answers[f"{URL}/patroni"] = Answer(200, patroni(**self.state))
        return Ended(0, output)

    @property
    def paused(self) -> bool:
        return bool(self.state.get("pause"))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def restart(self, **options: Any) -> None:
        tools = restart.Tools(self.node.machine, self.run, self.ask, self.said.append, self.sleep, lambda: self.now)
        restart.restart(self.node.paths, wait=options.pop("wait", 20), tools=tools, **options)

    def gone(self, unit: tuple[str, str, str] = ("failed", "failed", "exit-code"), code: int = 1) -> Ended:
        """Patroni does not come up."""
        self.units["patroni"] = unit
        for path in ("/patroni", "/cluster", "/leader"):
            self.answers[URL + path] = REFUSED
        return Ended(code, "Job for patroni.service failed.\nSee more.")

    def postmaster(self) -> None:
        for name, text in (("var/lib/postgresql/15/main/postmaster.pid", "77\n"), ("proc/77/comm", "postgres\n")):
            path = self.node.paths.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.fixture
def world(node: Node) -> World:
    return World(node)


def test_the_order(world: World) -> None:
    world.restart()
    assert world.ran == ALL
    assert not world.paused
    assert world.said[-1].startswith("done in ")


def test_without_postgresql(world: World) -> None:
    world.restart(postgresql=False)
    assert world.ran == ["pause", PATRONI, "resume"]


def test_a_replica_needs_no_leader_key(world: World) -> None:
    world.state = {"role": "replica", "replication_state": "streaming"}
    world.become("")
    world.answers[f"{URL}/leader"] = Answer(503)
    world.answers[f"{URL}/cluster"] = Answer(200, cluster(leader="pg-srv2"))
    world.restart()
    assert world.ran == ALL


def test_postgresql_waits_for_the_leader_key_of_the_new_patroni(world: World) -> None:
    def slow() -> Ended:
        world.answers[f"{URL}/leader"] = Answer(503)
        return Ended(0, "")

    def sleep(seconds: float) -> None:
        world.now += seconds
        if world.now > 3:
            world.answers[f"{URL}/leader"] = Answer(200)

    world.does[PATRONI] = slow
    world.sleep = sleep  # type: ignore[method-assign]
    world.restart()
    assert world.now > 3
    assert world.ran == ALL


def test_a_change_that_was_not_applied_is_said_and_does_not_hold_up(world: World) -> None:
    world.node.write(MINIMAL + "tags: {clonefrom: true}\n")
    world.restart()
    assert "patroni.yml: run `systemctl restart patroni-node && systemctl reload patroni`" in world.said[1]
    assert world.ran == ALL


REFUSALS: list[tuple[str, Callable[[World], Any], type[NodeError], int, str]] = [
    ("paused", lambda w: w.become("", pause=True), BusyError, EX_TEMPFAIL, f"resume {CLUSTER}`, then this again"),
    (
        "paused says the store",
        lambda w: w.answers.update({f"{URL}/cluster": Answer(200, cluster(pause=True))}),
        BusyError,
        EX_TEMPFAIL,
        "maintenance mode already",
    ),
    ("bad node.yml", lambda w: w.node.write("cluster: a\n"), NodeError, EX_CONFIG, "nothing was restarted"),
    ("no Patroni", lambda w: w.gone(), UnavailableError, EX_UNAVAILABLE, "patroni.service is failed"),
    (
        "no answer",
        lambda w: w.gone(("active", "running", "success")),
        UnavailableError,
        EX_UNAVAILABLE,
        "does not answer at",
    ),
    ("not running", lambda w: w.become("", state="starting"), UnavailableError, EX_UNAVAILABLE, "its state: starting"),
    (
        "no store",
        lambda w: w.answers.update({f"{URL}/cluster": Answer(failure="timed out")}),
        UnavailableError,
        EX_UNAVAILABLE,
        "cannot ask the store",
    ),
    (
        "no leader",
        lambda w: w.answers.update({f"{URL}/cluster": Answer(200, cluster(leader=None))}),
        UnavailableError,
        EX_UNAVAILABLE,
        "has no leader",
    ),
    (
        "not ready",
        lambda w: w.node.paths.ready.unlink(),
        UnavailableError,
        EX_UNAVAILABLE,
        "not configured in this boot",
    ),
]


@pytest.mark.parametrize(("make", "kind", "code", "words"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS])
def test_what_is_refused_before_anything_is_done(
    world: World, make: Callable[[World], Any], kind: type[NodeError], code: int, words: str
) -> None:
    make(world)
    with pytest.raises(kind, match=words) as refused:
        world.restart()
    assert refused.value.exit_code == code
    assert world.ran == []


def test_somebody_else_was_faster(world: World) -> None:
    world.does["pause"] = lambda: Ended(1, "Error: Cluster is already paused")
    with pytest.raises(BusyError):
        world.restart()
    assert world.ran == ["pause"]


FAILURES: list[tuple[str, str, Callable[[World], Ended], str]] = [
    ("pause fails", "pause", lambda w: Ended(0, "Failed: pause cluster management status code=403"), "status code=403"),
    (
        "pause is not noticed",
        "pause",
        lambda w: Ended(0, "Success: cluster management is paused"),
        "in vain until this",
    ),
    ("PostgreSQL fails", "restart", lambda w: Ended(0, "Failed: restart for member pg-srv1, x"), "Failed: restart for"),
    ("PostgreSQL was not", "restart", lambda w: w.become("Success: restart on member"), "until PostgreSQL runs as"),
    (
        "another role",
        "restart",
        lambda w: w.become("Success: restart on member", postmaster_start_time="x", role="replica"),
        "the member: replica",
    ),
    (
        "Patroni fails, and comes",
        PATRONI,
        lambda w: Ended(1, "Job for patroni.service failed.\nSee"),
        "Job for patroni",
    ),
]


@pytest.mark.parametrize(("step", "does", "words"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_a_failure_resumes(world: World, step: str, does: Callable[[World], Ended], words: str) -> None:
    world.does[step] = lambda: does(world)
    with pytest.raises(UnavailableError, match=words):
        world.restart()
    assert world.ran[-1] == "resume"
    assert not world.paused


def test_a_bug_resumes_too(world: World) -> None:
    def bug() -> Ended:
        raise KeyError("a secret")

    world.does["restart"] = bug
    with pytest.raises(UnavailableError, match="unexpectedly") as error:
        world.restart()
    assert "a secret" not in str(error.value)
    assert world.ran[-1] == "resume"


@pytest.fixture
def heeded() -> Iterator[None]:
    """No signal is ignored, as nohup and a shell's background have it."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in restart.HEAVY}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", ALL)
def test_a_signal_resumes(world: World, heeded: None, number: signal.Signals, step: str) -> None:
    real = world.does[step]
    before = signal.getsignal(number)

    def interrupted() -> Ended:
        signal.raise_signal(number)
        return real()

    world.does[step] = interrupted
    if step == "resume":
        # All was done.
        world.restart()
    else:
        with pytest.raises(restart.Interrupted, match=number.name) as error:
            world.restart()
        assert error.value.exit_code == 128 + number
    assert world.ran == [*ALL[: ALL.index(step) + 1], *(["resume"] if step != "resume" else [])]
    assert not world.paused
    assert signal.getsignal(number) is before


def test_a_signal_before_the_pause_resumes_nothing(world: World, heeded: None) -> None:
    """Whoever has paused the cluster meanwhile is still at work."""

    class Interrupting(list[str]):
        def append(self, line: str) -> None:
            if line.startswith("pause the cluster"):
                signal.raise_signal(signal.SIGTERM)

    world.said = Interrupting()
    with pytest.raises(restart.Interrupted):
        world.restart()
    assert world.ran == []


def test_a_primary_without_patroni_is_not_given_a_second_one(world: World) -> None:
    world.postmaster()
    world.does[PATRONI] = world.gone
    with pytest.raises(StillPausedError, match="STILL IN MAINTENANCE MODE, on purpose") as error:
        world.restart()
    assert error.value.exit_code == EX_OSERR
    assert "Job for patroni.service failed." in str(error.value)
    assert f"resume {CLUSTER}`" in str(error.value)
    assert world.ran == ["pause", PATRONI]


def test_without_postgresql_either_another_member_may_take_over(world: World) -> None:
    world.does[PATRONI] = world.gone
    with pytest.raises(UnavailableError, match="Job for"):
        world.restart()
    assert world.ran[-1] == "resume"


def test_a_replica_without_patroni_is_no_reason_to_stay_paused(world: World) -> None:
    world.answers[f"{URL}/cluster"] = Answer(200, cluster(leader="pg-srv2"))
    world.postmaster()
    world.does[PATRONI] = world.gone
    with pytest.raises(UnavailableError, match="Job for"):
        world.restart()
    assert world.ran[-1] == "resume"


def test_patroni_that_is_being_stopped_is_not_told_of_the_resumption(world: World) -> None:
    def hangs() -> Ended:
        world.units["patroni"] = ("deactivating", "stop-sigterm", "success")
        return Ended(None, "")

    world.postmaster()
    world.does[PATRONI] = hangs
    with pytest.raises(StillPausedError, match="it did not end in time"):
        world.restart()
    assert world.ran == ["pause", PATRONI]


def test_a_resumption_is_tried_again(world: World) -> None:
    answers = [Ended(0, "Failed: resume"), Ended(1, "Error: Can not find accessible cluster member")]
    done = world.does["resume"]
    world.does["resume"] = lambda: answers.pop() if answers else done()
    world.restart()
    assert world.ran == ["pause", PATRONI, "restart", "resume", "resume", "resume"]


def test_a_resumption_that_does_not_work_says_what_to_run(world: World) -> None:
    world.does["resume"] = lambda: Ended(1, "Error: Can not find accessible cluster member")
    with pytest.raises(StillPausedError, match=rf"run `patronictl .* resume {CLUSTER}` \(it said: Error: Can not"):
        world.restart()


def test_somebody_else_has_resumed_it(world: World) -> None:
    world.does["resume"] = lambda: Ended(1, "Error: Cluster is not paused")
    world.restart()
    assert world.ran == ALL


def test_a_terminal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    restart.say("x")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    called: list[dict[str, Any]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(restart, "restart", lambda paths, **options: called.append(options))
    assert cli.main(["restart", "--wait", "60", "--no-postgresql"]) == 0
    assert cli.main(["restart"]) == 0
    assert called == [{"wait": 60, "postgresql": False}, {"wait": 300, "postgresql": True}]

    def refuse(*_: Any, **__: Any) -> None:
        raise BusyError("it is\x1b paused")

    monkeypatch.setattr(restart, "restart", refuse)
    assert cli.main(["restart"]) == EX_TEMPFAIL
    assert capsys.readouterr().err == "patroni-node restart: it is? paused\n"


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "99999999", "²"])
def test_a_wait_that_makes_no_sense(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["restart", "--wait", text])
    assert "from 1 to 86400" in capsys.readouterr().err
