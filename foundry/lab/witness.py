"""The writer under way beside a cluster, from the point of view of the test that does things to that cluster.

with watch(cluster) as witness:
    witness.note("power cut")
    cluster.machines[leader].cut_power()
    …
    witness.wait_progress(60)
judgement = judge(witness.history(), rows(cluster, witness.run), synchronous=False)
assert judgement.violations == [], "\n".join(judgement.summary())
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from foundry import run
from foundry.errors import FoundryError, GuestError
from foundry.lab import history
from foundry.lab.cluster import Cluster
from foundry.lab.history import History, Value
from foundry.lab.plan import Node
from foundry.lab.writer import READY
from foundry.machine import wait
from patroni_node import derivation

READY_SECONDS = 70.0
END_SECONDS = 12.0


class Witness:
    """One run of the writer; it writes while the block lasts.

    enter: the words with which a command runs in the cluster's network. path: the history's file. root: the project's
    folder. options: more of the writer's command line ("--rate", "200").
    """

    def __init__(
        self,
        enter: Sequence[str],
        members: Sequence[Node],
        password: str,
        path: Path,
        root: Path,
        options: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.notes: list[tuple[float, str]] = []
        hosts = [f"--host={member.name}={member.address}" for member in members]
        self._words = [*enter, sys.executable, "-m", "foundry.lab.writer", *hosts, *options, str(path)]
        # Not on the command line, which everybody on the host may read.
        self._environment = {"PYTHONPATH": str(root), "PGPASSWORD": password}
        self._process: run.Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self.stop()
        if code and error is None:
            raise FoundryError(f"the writer exited {code}", details=self._said(), log=self._log())

    def start(self) -> None:
        """Begin to write; returns when the first value was acknowledged. Raises GuestError when none is."""
        process = run.Process(self._words, name=f"writer-{self.path.stem}", env=self._environment)
        self._process = process
        process.follow()
        wait.until(
            lambda: (READY in process.lines, self._said()),
            what="the writer's first value",
            timeout=READY_SECONDS,
            dead=self._dead,
            interval=0.05,
        )

    def stop(self) -> int:
        """End the writer, once what is under way was answered; returns its exit code."""
        assert self._process is not None
        self._process.stop(grace=END_SECONDS)
        return self._process.poll() or 0

    def note(self, text: str) -> None:
        """Remember that something was done at this moment, for a plot."""
        self.notes.append((time.monotonic(), text))

    @property
    def run(self) -> str:
        """What the rows of this run carry in the column of that name."""
        return self.history().run

    def history(self) -> History:
        """What was seen so far. Raises FoundryError before the writer has started."""
        return history.load(self.path)

    def wait_progress(self, seconds: float, count: int = 1) -> float:
        """Wait until count values were begun after this call and acknowledged; returns the seconds that took.

        Raises GuestError when that takes longer than so many seconds.
        """
        begin = time.monotonic()
        # Only what is new: reading a long history again and again would take the cluster's share of the processor.
        with self.path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            begun: set[tuple[int, int]] = set()
            acknowledged = 0

            def look() -> tuple[bool, object]:
                nonlocal acknowledged
                for line in _whole_lines(stream):
                    value = line.get("client", -1), line.get("sequence", -1)
                    if line["kind"] == "invoke":
                        begun.add(value)
                    acknowledged += line["kind"] == "ok" and value in begun
                return acknowledged >= count, f"{acknowledged} of {count} acknowledged, {len(begun)} begun"

            wait.until(look, what="a write that is acknowledged", timeout=seconds, dead=self._dead, interval=0.1)
        return time.monotonic() - begin

    def _said(self) -> str:
        return "\n".join(self._process.tail) if self._process else ""

    def _log(self) -> Path | None:
        return self._process.log if self._process else None

    def _dead(self) -> str | None:
        code = self._process.poll() if self._process else 0
        return None if code is None else f"the writer exited {code} {self._said()}".rstrip()


def _whole_lines(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """What was written since the last call, but for a line that is being written now."""
    while True:
        place = stream.tell()
        line = stream.readline()
        if not line.endswith(b"\n"):
            stream.seek(place)
            return
        yield json.loads(line)


def watch(cluster: Cluster, name: str = "history", options: Sequence[str] = (), more: Sequence[Node] = ()) -> Witness:
    """A writer for a cluster, which has a leader. more: members that are not there yet, or other addresses of some."""
    version = 1 if cluster.plan.protection.get("compatibility") == 1 else 2
    password = derivation.derive(cluster.plan.key, cluster.plan.cluster, version).passwords["superuser"]
    enter = ["nsenter", f"--net={cluster.network.switch}"]
    members = [*cluster.nodes.values(), *more]
    return Witness(enter, members, password, cluster.folder / f"{name}.jsonl", cluster.workspace.root, options)


def rows(cluster: Cluster, run_id: str, member: str | None = None) -> list[Value]:
    """The values of a run that a member (default: the leader) holds. Raises GuestError without a leader."""
    name = member or cluster.leader()
    if name is None:
        raise GuestError("no member leads, so there is no table to judge by")
    command = f'cd /; sudo -u postgres psql -XAtc "{history.query(run_id)}"'
    return history.values(cluster.machines[name].ssh(command).output)
