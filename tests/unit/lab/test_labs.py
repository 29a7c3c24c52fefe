"""Labs as the tasks see them: which run, what is refused, and what is kept of one that failed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from foundry import files
from foundry.errors import ConfigError, FoundryError
from foundry.lab import keeper, labs
from foundry.lab.plan import Plan
from foundry.machine import owner
from foundry.workspace import HOST_BOOT_ID, Workspace


def make(workspace: Workspace, name: str, **state: Any) -> Path:
    """The folder of a lab that this very process keeps, unless state says otherwise."""
    folder = workspace.labs / name
    folder.mkdir(parents=True)
    Plan(name, "/x.qcow2", 2).save(folder / keeper.PLAN)
    own = {"pid": os.getpid(), "since": owner.started(os.getpid()), "space": "/run/netns/pf-1-abcdef"}
    machines = {"pg-srv1": "/one/ssh_config", "pg-srv2": "/two/ssh_config"}
    files.write_json(folder / keeper.STATE, {**own, "machines": machines, **state})
    return folder


def test_a_lab_runs_while_its_keeper_does(workspace: Workspace) -> None:
    lab = labs.find(workspace, make(workspace, "a").name)
    assert (lab.plan.name, lab.pid, lab.space.name) == ("a", os.getpid(), "pf-1-abcdef")
    assert lab.machines == {"pg-srv1": Path("/one/ssh_config"), "pg-srv2": Path("/two/ssh_config")}


@pytest.mark.parametrize("state", [{"pid": 999_999_999}, {"since": "1"}, {"since": None}])
def test_a_keeper_that_has_gone_keeps_nothing(state: dict[str, Any], workspace: Workspace) -> None:
    """Also where another process has its number by now."""
    assert labs.running(make(workspace, "a", **state)) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"pid": 1}', '{"pid": 1, "machines": 3}'])
def test_what_is_no_state_is_no_lab(text: str, workspace: Workspace) -> None:
    folder = make(workspace, "a")
    (folder / keeper.STATE).write_text(text, encoding="utf-8")
    assert labs.running(folder) is None


def test_a_process_that_nobody_has_waited_for_is_none(tmp_path: Path) -> None:
    for number, state in ((1, "S"), (2, "Z"), (3, "X")):
        (tmp_path / str(number)).mkdir()
        fields = " ".join([state, *map(str, range(4, 30))])
        (tmp_path / str(number) / "stat").write_text(f"{number} (a ) b) {fields}", encoding="utf-8")
    boot = HOST_BOOT_ID.read_text(encoding="ascii").strip()
    assert [owner.started(n, tmp_path) for n in (1, 2, 3, 4)] == [f"{boot} 22", None, None, None]


def test_a_process_of_another_boot_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = owner.started(os.getpid())
    (tmp_path / "boot").write_text("another\n", encoding="ascii")
    monkeypatch.setattr(owner, "HOST_BOOT_ID", tmp_path / "boot")
    assert owner.started(os.getpid()) not in (None, before)


def test_why_a_lab_that_is_there_does_not_run(workspace: Workspace) -> None:
    folder = make(workspace, "a", since="1")
    with pytest.raises(ConfigError, match="no lab a runs any more: its keeper was killed") as caught:
        labs.find(workspace, "a")
    assert "cluster-down --name a` removes what is left" in (caught.value.hint or "")
    (folder / keeper.STATE).unlink()
    with pytest.raises(ConfigError, match="no lab a runs: its cluster has not formed"):
        labs.find(workspace, "a")


def test_who_asks_for_a_lab_that_does_not_run_is_told_which_do(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="no lab lab runs") as caught:
        labs.find(workspace, "lab")
    assert caught.value.hint == "`./inv cluster-up` makes one"
    for name in ("b", "a"):
        make(workspace, name)
    make(workspace, "dead", since="1")
    with pytest.raises(ConfigError) as caught:
        labs.find(workspace, "lab")
    assert caught.value.hint == "running: a, b (--name)"
    assert labs.names(workspace) == ["a", "b", "dead"]


@pytest.mark.parametrize("act", [labs.find, labs.down])
def test_a_name_never_leads_out_of_the_folder_of_labs(act: Any, workspace: Workspace) -> None:
    workspace.labs.mkdir(parents=True)
    with pytest.raises(ConfigError, match="--name"):
        act(workspace, "../images")


def test_a_node_that_is_none_is_refused_with_those_that_are(workspace: Workspace) -> None:
    lab = labs.find(workspace, make(workspace, "a").name)
    with pytest.raises(ConfigError, match="lab a has no node 'x'") as caught:
        labs.shell_words(lab, "x")
    assert caught.value.hint == "its nodes: pg-srv1, pg-srv2"


def test_commands_for_nodes(workspace: Workspace) -> None:
    lab = labs.find(workspace, make(workspace, "a").name)
    words = labs.psql_words(lab, "pg-srv2", "SELECT 'it''s'")
    assert words[:3] == ["ssh", "-F", "/two/ssh_config"]
    assert words[-1].startswith("cd / && sudo -u postgres psql -c ")
    for unit in labs.UNITS:
        assert f"-u {unit}" in labs.journal_words(lab, "pg-srv1", follow=True)[-1]


def test_a_keeper_that_does_not_answer_is_named(workspace: Workspace) -> None:
    lab = labs.find(workspace, make(workspace, "a").name)
    with pytest.raises(FoundryError, match=f"its keeper \\(process {os.getpid()}\\) does not answer") as caught:
        labs.ask(lab, "status", 1)
    assert caught.value.hint == "`./inv cluster-down --name a` ends it"
