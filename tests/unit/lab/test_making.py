"""How a lab is made and ended, beside its keeper: what is followed, told, kept and removed. No keeper is started."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from foundry import config, files, run
from foundry.config import Config
from foundry.errors import Cancelled, CommandFailed, ConfigError, FoundryError, GuestError
from foundry.lab import claim, disks, keeper, labs
from foundry.lab.labs import Lab
from foundry.lab.plan import Plan
from foundry.machine import netns, owner
from foundry.run import Result
from foundry.workspace import Workspace
from tests.unit.lab.fakes import answer

PROJECT = Path(__file__).parents[3]
TABLE = "+ Cluster: pg-15-cluster"
UP: dict[str, Any] = {"nodes": "3", "machine": "container", "dcs": "consul", "profile": "default", "wanted": ""}


@pytest.fixture
def cfg() -> Config:
    return config.load(PROJECT / "foundry.yml")


@pytest.fixture(autouse=True)
def _no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "sweep", lambda: None)
    monkeypatch.setattr(labs.os, "geteuid", lambda: 0)


def write(workspace: Workspace, name: str = "lab", **state: Any) -> Path:
    """The folder of a lab whose keeper is this process, unless state says otherwise."""
    folder = workspace.labs / name
    Plan(name, "/images/debian-12.qcow2").save(folder / keeper.PLAN)
    machines = {f"pg-srv{n}": str(folder / f"machines/pg-srv{n}/ssh_config") for n in (1, 2, 3)}
    own = {"pid": os.getpid(), "since": owner.started(os.getpid()), "space": "/x", "machines": machines}
    files.write_json(folder / keeper.STATE, {**own, **state})
    return folder


@pytest.fixture
def lab(workspace: Workspace) -> Lab:
    found = labs.running(write(workspace))
    assert found is not None
    return found


class Nodes:
    """What the nodes of a lab answer."""

    def __init__(self) -> None:
        self.machines = dict.fromkeys(("pg-srv1", "pg-srv2", "pg-srv3"), "on")
        self.members = answer(("pg-srv1", "replica", "streaming"), ("pg-srv2", "leader", "running"))
        self.silent: set[str] = set()
        self.asked: list[str] = []

    def answer(self, lab: Lab, name: str, command: str, *, seconds: float = 30) -> Result:
        self.asked.append(name)
        if name in self.silent:
            raise CommandFailed(f"ssh-{name} took longer than 30 s")
        return Result((), 0, TABLE if "patronictl" in command else self.members, None)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    found = Nodes()
    monkeypatch.setattr(labs, "ask", lambda lab, wish, seconds: {"machines": found.machines})
    monkeypatch.setattr(labs, "on_node", found.answer)
    return found


def test_status_is_what_the_first_node_says(lab: Lab, nodes: Nodes) -> None:
    found = labs.status(lab)
    assert found.summary() == [TABLE, f"lab      lab, in {lab.folder}"]
    assert [m["name"] for m in found.as_dict()["members"]] == ["pg-srv1", "pg-srv2"]
    assert json.loads(json.dumps(found.as_dict()))["machines"] == nodes.machines
    assert set(nodes.asked) == {"pg-srv1"}
    assert labs.leader(lab) == "pg-srv2"


def test_status_passes_over_what_is_off_or_does_not_answer(lab: Lab, nodes: Nodes) -> None:
    nodes.machines["pg-srv1"] = "the machine is off"
    nodes.silent.add("pg-srv2")
    found = labs.status(lab)
    assert found.table == TABLE
    assert "pg-srv1: the machine is off" in found.summary()
    assert nodes.asked == ["pg-srv2", "pg-srv3", "pg-srv3"]


def test_without_a_leader_it_is_said_how_things_are(lab: Lab, nodes: Nodes) -> None:
    nodes.silent |= set(nodes.machines)
    with pytest.raises(FoundryError, match="lab lab has no leader") as caught:
        labs.psql_words(lab, "", "SELECT 1")
    assert str(caught.value.details).startswith("no node answers patronictl")


def failed_lab(workspace: Workspace) -> Path:
    folder = write(workspace)
    (folder / keeper.STATE).unlink()
    for name, text in {
        "keys/key": "SECRET",
        "logs/ssh-pg-srv1.log": "$ ssh",
        "failed/pg-srv1-journal.log": "patroni: no leader",
        "machines/pg-srv1/console.log": "login:",
        "machines/pg-srv1/upper/etc/patroni/patroni.yml": "SECRET",
        "machines/pg-srv1/seed/user-data": "SECRET",
    }.items():
        files.write(folder / name, text)
    return folder


def kept(workspace: Workspace) -> dict[str, str]:
    target = workspace.failed / "lab-lab"
    return {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}


def test_what_a_failure_leaves_has_no_key(workspace: Workspace) -> None:
    files.write(workspace.failed / "lab-lab/older.log", "of an earlier failure")
    folder = failed_lab(workspace)
    plan_key = files.read_json(folder / keeper.PLAN)["key"]
    labs.keep_failed(folder, workspace)
    found = kept(workspace)
    assert found == {
        "logs/ssh-pg-srv1.log": "$ ssh",
        "pg-srv1-journal.log": "patroni: no leader",
        "machines/pg-srv1/console.log": "login:",
    }
    assert not any("SECRET" in text or plan_key in text for text in found.values())


class Keeper:
    """A keeper that says some lines, in place of the process."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.log = Path("/logs/lab-keeper.log")
        self.kept: list[str] = []

    def __call__(self, words: list[str], **options: Any) -> Keeper:
        self.words, self.options = words, options
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def heard(self) -> Iterator[str]:
        yield from self.lines

    def let_go(self, word: str) -> None:
        self.kept.append(word)


def up(cfg: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *lines: str) -> tuple[Keeper, labs.Formed]:
    fake = Keeper(list(lines))
    monkeypatch.setattr(run, "Attached", fake)
    monkeypatch.setattr(disks, "find", lambda *_: (Path("/images/debian-12.qcow2"), "qcow2"))
    return fake, labs.up(cfg, workspace, name="lab", **UP)


def test_up_follows_the_keeper_and_lets_it_go(
    cfg: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.labs / "lab"
    files.write(folder / "machines/pg-srv1/console.log", "of a lab that was killed")
    real = Keeper.heard

    def forms(self: Keeper) -> Iterator[str]:
        assert [p.name for p in sorted(folder.iterdir())] == [claim.CLAIM, keeper.PLAN]
        yield from real(self)
        write(workspace)
        yield json.dumps({"formed": 16.64, "table": TABLE})

    monkeypatch.setattr(Keeper, "heard", forms)
    fake, formed = up(cfg, workspace, monkeypatch, json.dumps({"info": "booting"}), "Python says something", "3")
    assert fake.kept == ["keep"]
    assert fake.words[1:] == ["-m", "foundry.lab.keeper", str(folder), str(workspace.root), str(workspace.build)]
    assert len(fake.options["keeps"]) == 1, "it inherits the claim"
    assert formed.summary()[0] == TABLE
    assert "16.6 s of debian-12" in formed.summary()[1]
    named = replace(formed, lab=replace(formed.lab, plan=Plan("two", "/x")))
    assert "--name two" in named.summary()[-1]


def test_what_the_keeper_failed_with_is_raised_and_its_logs_are_moved(
    cfg: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.labs / "lab"
    written = folder / "machines/pg-srv1/console.log"
    said = {"error": ["no leader", "seen: nothing", str(written), "look there"], "code": 5}
    monkeypatch.setattr(Keeper, "heard", lambda self: iter([failed_lab(workspace), json.dumps(said)][1:]))
    with pytest.raises(GuestError, match="no leader") as caught:
        up(cfg, workspace, monkeypatch)
    assert (caught.value.code, caught.value.details, caught.value.hint) == (5, "seen: nothing", "look there")
    assert caught.value.log == workspace.failed / "lab-lab/machines/pg-srv1/console.log"
    assert caught.value.log.read_text() == "login:"
    assert labs.names(workspace) == []


def test_a_failure_without_a_log_names_where_all_of_them_are(
    cfg: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"error": ["no leader", None, None, None], "code": 7}
    monkeypatch.setattr(Keeper, "heard", lambda self: iter([failed_lab(workspace), json.dumps(said)][1:]))
    with pytest.raises(GuestError) as caught:
        up(cfg, workspace, monkeypatch)
    assert caught.value.log == workspace.failed / "lab-lab"


def test_a_keeper_that_ends_without_a_word_is_told_with_its_last_lines(
    cfg: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GuestError, match="ended without a word") as caught:
        up(cfg, workspace, monkeypatch, json.dumps({"info": "x"}), "Traceback", "KeyError: 'x'")
    assert caught.value.details == "Traceback\nKeyError: 'x'"
    assert caught.value.log == Path("/logs/lab-keeper.log")
    assert labs.names(workspace) == []


def test_an_interrupt_keeps_what_an_earlier_failure_left(
    cfg: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(workspace.failed / "lab-lab/older.log", "of an earlier failure")

    def interrupted(self: Keeper) -> Iterator[str]:
        files.write(workspace.labs / "lab/logs/ip.log", "$ ip")
        run.cancel()
        return iter(())

    monkeypatch.setattr(Keeper, "heard", interrupted)
    with pytest.raises(Cancelled):
        up(cfg, workspace, monkeypatch)
    assert kept(workspace) == {"older.log": "of an earlier failure"}
    assert labs.names(workspace) == []


def test_an_interrupt_after_the_keeper_was_let_go_ends_it(
    cfg: Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def late(self: Keeper, word: str) -> None:
        write(workspace)
        raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "let_go", late)
    monkeypatch.setattr(labs, "_end", lambda lab: ended.append(lab.plan.name))
    with pytest.raises(KeyboardInterrupt):
        up(cfg, workspace, monkeypatch, json.dumps({"formed": 1, "table": TABLE}))
    assert ended == ["lab"]
    assert labs.names(workspace) == []


def test_down_removes_whatever_state_a_lab_is_in(workspace: Workspace) -> None:
    write(workspace, pid=2**22 + 1)
    assert labs.down(workspace, "lab") == ["lab lab is gone"]
    (workspace.labs / "lab/logs").mkdir(parents=True)
    assert labs.down(workspace, "lab") == ["lab lab is gone"]
    with pytest.raises(ConfigError, match="no lab lab runs"):
        labs.down(workspace, "lab")
    assert labs.names(workspace) == []


def test_down_asks_the_keeper_and_waits_for_its_end(
    workspace: Workspace, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes: list[str] = []
    states = iter([lab.since, lab.since, lab.since, None])
    monkeypatch.setattr(labs, "ask", lambda lab, wish, seconds: wishes.append(wish))
    monkeypatch.setattr(owner, "started", lambda pid: next(states, None))
    killed: list[int] = []
    monkeypatch.setattr(labs.os, "kill", lambda pid, number: killed.append(pid))
    assert labs.down(workspace, "lab") == ["lab lab is gone"]
    assert (wishes, killed) == (["stop"], [])
    assert next(states, "all seen") == "all seen"


def test_down_kills_a_keeper_that_does_not_answer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    alive = [lab.since]

    def kill(pid: int, number: int) -> None:
        killed.append(pid)
        alive.clear()

    monkeypatch.setattr(labs.os, "kill", kill)
    monkeypatch.setattr(owner, "started", lambda pid: alive[0] if alive else None)
    labs._end(lab)
    assert killed == [lab.pid]


def test_down_never_kills_another_process_with_that_number(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs.os, "kill", lambda pid, number: pytest.fail("it killed another process"))
    labs._end(replace(lab, since="another boot 17"))
