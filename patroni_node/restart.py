"""`patroni-node restart`: what an administrator runs after security updates.

The cluster is paused (Patroni's maintenance mode), so that nothing fails over and Patroni leaves PostgreSQL running
when it ends (patroni/ha.py, shutdown). Patroni goes first: should its new version not start, PostgreSQL was not
touched, and it is the new Patroni, in a sandbox as the unit has it now, that starts PostgreSQL again. Then the cluster
is resumed.

patronictl exits with 0 even where a member refuses (patroni/ctl.py, restart and toggle_pause), so what it prints is
read, and what has become of the member is asked at the member.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Self

from patroni_node import commands, effective, install, member, notice, postmaster, problems, rest
from patroni_node.commands import PATRONICTL, Feed, Run
from patroni_node.dcs import Consul
from patroni_node.decide import Machine, decide
from patroni_node.effective import Effective
from patroni_node.errors import BusyError, NodeError, Problem, StillPausedError, UnavailableError, printable
from patroni_node.member import Cluster, Member
from patroni_node.paths import Paths
from patroni_node.rest import Ask

POLL_SECONDS = 0.5
RESUME_SECONDS = 60.0
PAUSE_SECONDS = 60.0
"""More than patronictl's own patience, which is the cluster's loop_wait (ctl.py, wait_until_pause_is_applied)."""
PAUSED = "Success: cluster management is paused"
ALREADY_PAUSED = "already paused"
RESUMED = ("Success: cluster management is resumed", "Cluster is not paused")
RESTARTED = "Success: restart on member"
HEAVY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(NodeError):
    """A signal asked this program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        # As a shell says it of a program that the signal has ended.
        self.exit_code = 128 + number


class Signals:
    """Keeps SIGINT, SIGTERM and SIGHUP from ending the program at any place; whoever waits looks at `received`."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in HEAVY:
            # Ignored by whoever started this (nohup): it stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def check(self) -> None:
        """Raise Interrupted when one came."""
        if self.received is not None:
            raise Interrupted(self.received)


def say(text: str) -> None:
    """Print a line; a terminal that is gone is no reason to leave a cluster paused."""
    try:
        print(printable(text), flush=True)
    except OSError:
        return


@dataclass(frozen=True)
class Tools:
    """What tests replace."""

    machine: Machine = field(default_factory=Machine)
    run: Run = commands.run
    ask: Ask = rest.ask
    say: Callable[[str], None] = say
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    feed: Feed = commands.feed


def restart(paths: Paths, *, wait: float, postgresql: bool = True, tools: Tools | None = None) -> None:
    """Restart Patroni, and PostgreSQL unless told otherwise, without a failover.

    Args:
        paths: where everything is.
        wait: the most seconds that each step may take.
        postgresql: whether PostgreSQL is restarted too.
        tools: for tests.

    Raises:
        NodeError: node.yml is refused. UnavailableError: the cluster is in no state for it, or a step failed.
        BusyError: it is paused already. Interrupted: by a signal. StillPausedError: the cluster is in maintenance mode
        and stays so; what to run is said. In all other cases it is not in maintenance mode by us.
    """
    tools = tools or Tools()
    begin = tools.clock()
    with Signals() as signals:
        node = _preflight(paths, tools)
        work = _Work(node, tools, signals, wait)
        failure: NodeError | None = None
        try:
            work.pause()
            work.restart_patroni()
            if postgresql:
                work.restart_postgresql()
        except NodeError as error:
            failure = error
        except Exception as error:
            failure = UnavailableError(f"failed unexpectedly ({type(error).__name__}): please report it")
        if work.paused:
            try:
                work.resume()
            except Exception as error:
                raise work.still_paused(failure, error) from None
    if failure is not None:
        raise failure
    now = work.look()
    tools.say(f"done in {tools.clock() - begin:.0f} s: {now}")


@dataclass(frozen=True)
class _Node:
    """This node as it was before."""

    paths: Paths
    effective: Effective
    before: Member
    leads: bool


def _preflight(paths: Paths, tools: Tools) -> _Node:
    """Look whether all is as it must be, and change nothing."""
    try:
        decided = decide(paths, tools.machine)
    except NodeError as error:
        message = "nothing was restarted: this node would not come back from a reboot with this node.yml"
        raise NodeError([*error.problems, Problem(message)]) from None
    found = commands.units(["patroni-node", "patroni"], tools.run)
    outdated = install.different(decided.targets, tools.machine.owners(paths))
    now = effective.read(paths.patroni_yml)
    if now is None or not paths.ready.exists():
        said = " ".join(notice.read(paths))
        raise UnavailableError(
            f"this node was not configured in this boot: run `systemctl start patroni` {said}".rstrip()
        )
    if found["patroni"].active != "active":
        raise UnavailableError(f"Patroni does not run (patroni.service is {found['patroni']}): nothing was restarted")
    answers = rest.ask_all(member.questions(now.patroni), tools.ask)()
    own, cluster = member.member(answers[0]), member.cluster(answers[1])
    _require(now, own, cluster)
    tools.say(f"{now.name} of cluster {now.cluster}: {own}")
    dcs = decided.settings.dcs
    changed = problems.changed(outdated, found, consul_here=isinstance(dcs, Consul) and dcs.local)
    if changed:
        tools.say(f"note: {changed}; this restart goes on with what is rendered")
    return _Node(paths, now, own, cluster.leader == now.name)


def _require(now: Effective, own: Member, cluster: Cluster) -> None:
    if not own.answers:
        raise UnavailableError(f"Patroni does not answer at {now.patroni.url} ({own.failure}): nothing was restarted")
    if not cluster.answers:
        raise UnavailableError(f"Patroni cannot ask the store ({cluster.failure}): nothing was restarted")
    if cluster.paused or own.paused:
        message = (
            f"cluster {now.cluster} is in maintenance mode already: somebody is at work on it, or has left it so;"
            f" nothing was restarted. If nobody is, run `{problems.resume(now.cluster)}`, then this again"
        )
        raise BusyError(message)
    if not own.runs:
        raise UnavailableError(
            f"PostgreSQL does not run on this member (its state: {own.state}): nothing was restarted"
        )
    if cluster.leader is None:
        raise UnavailableError(f"cluster {now.cluster} has no leader: nothing was restarted")


class _Work:
    """The steps; paused says whether maintenance mode may be on because of us."""

    def __init__(self, node: _Node, tools: Tools, signals: Signals, wait: float) -> None:
        self.node = node
        self.tools = tools
        self.signals = signals
        self.wait = wait
        self.paused = False
        self.cluster, self.name = node.effective.cluster, node.effective.name

    def pause(self) -> None:
        """Put the cluster into maintenance mode, and wait until all members, this one for certain, know of it."""
        self.tools.say("pause the cluster: nothing fails over, and PostgreSQL outlives Patroni")
        self.signals.check()
        self.paused = True
        # Never cut off: whether the cluster is paused would not be known.
        done = self.tools.run([*PATRONICTL, "pause", self.cluster, "--wait"], PAUSE_SECONDS, commands.never)
        if ALREADY_PAUSED in done.output:
            self.paused = False
            raise BusyError(f"somebody else has just paused cluster {self.cluster}: nothing was restarted, try later")
        if PAUSED not in done.output:
            raise UnavailableError(f"the cluster could not be paused ({done.last}): nothing was restarted")
        self._until("this member knows of the pause", lambda own: own.paused)

    def restart_patroni(self) -> None:
        """Start a new Patroni, and wait until it has the member in its role again."""
        self.tools.say("restart Patroni; PostgreSQL goes on")
        # Never cut off: the old Patroni must not learn that the pause is over while it ends.
        done = self.tools.run(["systemctl", "restart", "patroni"], self.wait, commands.never)
        self.signals.check()
        if done.code != 0:
            raise UnavailableError(f"Patroni was not restarted ({done.first}): {problems.JOURNAL.format('patroni')}")
        self._until("the new Patroni has this member as it was", self._as_before)

    def restart_postgresql(self) -> None:
        """Let Patroni restart PostgreSQL, and wait until the member is in its role again."""
        self.tools.say("restart PostgreSQL through Patroni")
        words = [*PATRONICTL, "restart", self.cluster, self.name, "--force", "--timeout", str(int(self.wait))]
        done = self.tools.run(words, self.wait, self._stop)
        self.signals.check()
        if RESTARTED not in done.output:
            raise UnavailableError(f"PostgreSQL was not restarted ({done.last}): {problems.JOURNAL.format('patroni')}")
        started = self.node.before.started
        self._until("PostgreSQL runs as before", lambda own: own.started != started and self._as_before(own))

    def resume(self) -> None:
        """Take the cluster out of maintenance mode; signals wait until that is done."""
        self.tools.say("resume the cluster")
        command = problems.resume(self.cluster)
        deadline = self.tools.clock() + RESUME_SECONDS
        alone = not self._settled(deadline) and postmaster.runs(self.node.paths, self.node.effective.data_dir)
        if alone and self.node.leads:
            # Were it resumed, another member would be promoted while PostgreSQL here goes on as primary.
            message = (
                f"cluster {self.cluster} is STILL IN MAINTENANCE MODE, on purpose: its primary runs here without"
                " Patroni, and a resumed cluster would make a second one: bring Patroni back (`journalctl -u patroni`,"
                f" `systemctl start patroni`), then run `{command}`"
            )
            raise StillPausedError(message)
        while True:
            done = self.tools.run([*PATRONICTL, "resume", self.cluster, "--wait"], PAUSE_SECONDS, commands.never)
            if any(words in done.output for words in RESUMED):
                return
            if self.tools.clock() >= deadline:
                message = f"cluster {self.cluster} is STILL IN MAINTENANCE MODE (no failover): run `{command}`"
                raise StillPausedError(f"{message} (it said: {done.last})")
            self.tools.sleep(POLL_SECONDS)

    def still_paused(self, failure: NodeError | None, error: Exception) -> StillPausedError:
        """Return the error of a cluster that could not be resumed, after what else has failed."""
        unexpected = Problem(
            f"cluster {self.cluster} is STILL IN MAINTENANCE MODE: run `{problems.resume(self.cluster)}`"
        )
        last = error.problems if isinstance(error, StillPausedError) else (unexpected,)
        return StillPausedError([*(failure.problems if failure else ()), *last])

    def look(self) -> Member:
        """Return what Patroni says of this member now."""
        return member.member(self.tools.ask(self.node.effective.patroni.question("/patroni")))

    def _stop(self) -> bool:
        return self.signals.received is not None

    def _as_before(self, own: Member) -> bool:
        before = self.node.before
        same = (own.state, own.role, own.replication) == (before.state, before.role, before.replication)
        return same and (not self.node.leads or self._holds_the_lock())

    def _holds_the_lock(self) -> bool:
        # 200 only while the leader key is this Patroni's own (api.py, do_GET), not its predecessor's.
        return self.tools.ask(self.node.effective.patroni.question("/leader")).code == 200

    def _until(self, what: str, done: Callable[[Member], bool]) -> None:
        deadline = self.tools.clock() + self.wait
        while True:
            self.signals.check()
            own = self.look()
            if done(own):
                return
            unit = commands.units(["patroni"], self.tools.run)["patroni"]
            last = f"the member: {own if own.answers else own.failure}; patroni.service: {unit}"
            if unit.active == "failed":
                raise UnavailableError(f"waited until {what}, and Patroni has ended ({last})")
            if self.tools.clock() >= deadline:
                raise UnavailableError(f"waited {self.wait:.0f} s in vain until {what} ({last})")
            self.tools.sleep(POLL_SECONDS)

    def _settled(self, deadline: float) -> bool:
        """Wait until Patroni is up again and, on a leader, holds its key again; False where it does not come up."""
        while True:
            own, unit = self.look(), commands.units(["patroni"], self.tools.run)["patroni"]
            # One that is being stopped answers too; told that the pause is over, it would stop PostgreSQL as well.
            up = own.answers and unit.active == "active"
            if up and (not self.node.leads or not own.runs or self._holds_the_lock()):
                return True
            if unit.active in ("failed", "inactive") or self.tools.clock() >= deadline:
                return up
            self.tools.sleep(POLL_SECONDS)
