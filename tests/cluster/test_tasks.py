"""The lab as its users run it, with a build folder of its own, and what is left when that ends early."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from foundry import files
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, Ended, Inv, copy, gone, inv, keepers_of, leftovers, processes_of, until

UP = ("cluster-up", "--nodes", "1")
UP_SECONDS = 150
NODE = "pg-srv1"


@pytest.fixture(scope="module")
def build() -> Iterator[Path]:
    """A build folder that has the newest image, and no lab yet; its path has a space, and is too long for a socket."""
    ours = Workspace.at(ROOT).build
    parent = ours / "cluster-tests" / f"t {secrets.token_hex(3)}"
    folder = copy(ours, parent / ("x" * 90), ["images"])
    yield folder
    inv(folder, "cluster-down", "--all", seconds=UP_SECONDS)
    gone(folder)
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def two(build: Path) -> tuple[str, str]:
    """A lab of one node and a lab of two, made at the same time."""
    with ExitStack() as stack:
        ups = [("cluster-up", "--name", name, "--nodes", nodes) for name, nodes in (("a", "1"), ("b", "2"))]
        for run in [stack.enter_context(Inv(build, *words)) for words in ups]:
            ended = run.end(UP_SECONDS).expect(0)
            assert "| pg-srv1 | 10.129.0.21 |" in ended.out
    return "a", "b"


def lab(build: Path, name: str) -> Path:
    return build / "labs" / name


def keeper(build: Path, name: str) -> int:
    return int((files.read_json(lab(build, name) / "state.json") or {})["pid"])


def on_node(build: Path, name: str, command: str) -> str:
    return inv(build, "cluster-ssh", NODE, "--command", command, "--name", name).expect(0).out.strip()


def keyless(folder: Path) -> None:
    """No file of a folder is one that holds a key, or has a lab's key in it."""
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text("utf-8", "replace")
            assert "secrets" not in text and "PRIVATE KEY" not in text and '"key":' not in text, path


class TestTwoLabs:
    """In this order: the last ones end the labs."""

    def test_each_has_its_own_network(self, build: Path, two: tuple[str, str]) -> None:
        spaces = {(files.read_json(lab(build, name) / "state.json") or {})["space"] for name in two}
        assert len(spaces) == 2
        ids = {on_node(build, name, "sudo cat /etc/machine-id") for name in two}
        assert len(ids) == 2

    def test_status_for_people_and_for_programs(self, build: Path, two: tuple[str, str]) -> None:
        said = inv(build, "cluster-status", "--name", "a").expect(0).out
        assert "| pg-srv1 | 10.129.0.21 | Leader | running |" in said
        assert said.splitlines()[-1] == f"lab      a, in {lab(build, 'a')}"
        told = json.loads(inv(build, "cluster-status", "--name", "b", "--json").expect(0).out)
        assert (told["lab"], told["machines"]) == ("b", {NODE: "on", "pg-srv2": "on"})
        states = sorted((m["role"], m["state"]) for m in told["members"])
        assert states == [("leader", "running"), ("replica", "streaming")]

    def test_psql_asks_the_leader(self, build: Path, two: tuple[str, str]) -> None:
        ended = inv(build, "cluster-psql", "--name", "a", "--command", "SELECT 'so ' || pg_is_in_recovery()").expect(0)
        assert "so false" in ended.out
        failed = inv(build, "cluster-psql", "--name", "a", "--command", "SELECT nothing").expect(1)
        assert 'column "nothing" does not exist' in failed.err

    def test_a_replica_has_what_the_leader_took_and_takes_nothing_itself(
        self, build: Path, two: tuple[str, str]
    ) -> None:
        def psql(statement: str, *words: str) -> Ended:
            return inv(build, "cluster-psql", "--name", "b", *words, "--command", statement)

        psql("CREATE TABLE shared AS SELECT 'a b' AS n").expect(0)
        members = json.loads(inv(build, "cluster-status", "--name", "b", "--json").expect(0).out)["members"]
        replica = next(m["name"] for m in members if m["role"] == "replica")
        until(
            lambda: ("a b" in (ended := psql("TABLE shared", "--node", replica)).out, ended), "the replica has it", 30
        )
        refused = psql("INSERT INTO shared VALUES ('c')", "--node", replica).expect(1)
        assert "cannot execute INSERT in a read-only transaction" in refused.err

    def test_logs_of_a_node_and_of_all(self, build: Path, two: tuple[str, str]) -> None:
        for words in ([NODE], []):
            said = inv(build, "cluster-logs", *words, "--name", "a").expect(0).out
            for unit in ("patroni-node", "consul", "patroni"):
                assert f" {unit}[" in said, f"{unit} of {words}"

    def test_a_name_that_runs_nodes_that_are_none_and_options(self, build: Path, two: tuple[str, str]) -> None:
        inv(build, *UP, "--name", "a").refused(2, "lab a runs already", "cluster-down --name a")
        inv(build, "cluster-status").refused(2, "no lab lab runs", "running: a, b")
        inv(build, "cluster-ssh", "pg-srv2", "--name", "a").refused(2, "has no node 'pg-srv2'", f"its nodes: {NODE}")

    def test_a_node_that_reboots_itself_comes_back(self, build: Path, two: tuple[str, str]) -> None:
        asks = "cat /proc/sys/kernel/random/boot_id; awk '{print $22}' /proc/1/stat"
        before = on_node(build, "a", asks)
        # The connection may end before the command has.
        inv(build, "cluster-ssh", NODE, "--command", "sudo reboot", "--name", "a")

        def back() -> tuple[bool, object]:
            ended = inv(build, "cluster-ssh", NODE, "--name", "a", "--command", asks)
            return ended.code == 0 and ended.out.strip() != before, ended

        until(back, "ssh after a reboot", 60)

        def leads() -> tuple[bool, object]:
            ended = inv(build, "cluster-status", "--name", "a", "--json")
            members = json.loads(ended.out)["members"] if ended.code == 0 else []
            return [(m["role"], m["state"]) for m in members] == [("leader", "running")], ended

        until(leads, "the leader after a reboot", 60)

    def test_down_leaves_nothing_of_one_lab_and_all_of_the_other(self, build: Path, two: tuple[str, str]) -> None:
        mine, other = keeper(build, "a"), keeper(build, "b")
        assert inv(build, "cluster-down", "--name", "a").expect(0).out == "lab a is gone\n"
        assert not lab(build, "a").exists()
        left = leftovers(lab(build, "a"), [mine])
        assert left == []
        assert leftovers(lab(build, "b"), [other])
        inv(build, "cluster-down", "--name", "a").refused(2, "no lab a runs", "running: b")

    def test_a_killed_keeper_takes_its_machines_and_down_removes_the_rest(
        self, build: Path, two: tuple[str, str]
    ) -> None:
        number = keeper(build, "b")
        os.kill(number, signal.SIGKILL)
        inv(build, "cluster-status", "--name", "b").refused(2, "no lab b runs any more", "cluster-down --name b")
        assert inv(build, "cluster-down", "--name", "b").expect(0).out == "lab b is gone\n"
        gone(build, keepers=[number])
        assert not lab(build, "b").exists()


Moment = Callable[[Inv], tuple[bool, object]]


def keeper_runs(run: Inv) -> tuple[bool, object]:
    found = keepers_of(run.build)
    return bool(found), found


def machine_boots(run: Inv) -> tuple[bool, object]:
    found = leftovers(run.build)
    return any("systemd-nspawn" in line for line in found), found


def cluster_forms(run: Inv) -> tuple[bool, object]:
    return f"{NODE} was up after" in run.said, run.said


@pytest.mark.parametrize("moment", [keeper_runs, machine_boots, cluster_forms])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_start_leaves_nothing(build: Path, moment: Moment, number: signal.Signals) -> None:
    """Each run begins where the one before has ended: by SIGKILL, too."""
    with Inv(build, *UP) as run:
        run.reaches(lambda: moment(run), moment.__name__, 60)
        keepers = keepers_of(build)
        assert keepers
        ended = run.end(30, number)
        if number == signal.SIGKILL:
            assert ended.code == -number
        else:
            ended.refused(130, "interrupted")
            assert leftovers(build, keepers) == []
            assert not lab(build, "lab").exists()
            keyless(build / "failed")
    gone(build, 20, keepers)
    inv(build, "cluster-status").refused(2, "no lab lab runs")


def test_the_next_start_works_after_kills_of_both_processes(build: Path) -> None:
    """First of cluster-up, whose keeper may still be ending its machines; then of a keeper."""
    with Inv(build, *UP) as run:
        run.reaches(lambda: cluster_forms(run), "forming", 60)
        run.end(30, signal.SIGKILL)
    inv(build, *UP, seconds=UP_SECONDS).expect(0)
    number = keeper(build, "lab")
    os.kill(number, signal.SIGKILL)
    with Inv(build, *UP) as run:
        run.reaches(lambda: (f"booting {NODE}" in run.said, run.said), "booting", 60)
        found = leftovers(build, [number])
        assert not [line for line in found if f"pf-{number}-" in line]
        run.end(30, signal.SIGINT).refused(130, "interrupted")
    assert leftovers(build, [number]) == []


def test_two_starts_and_a_removal_of_one_name_do_not_meet(build: Path) -> None:
    with Inv(build, *UP, "--name", "c") as run:
        run.reaches(lambda: machine_boots(run), "machines boot", 60)
        for words in ((*UP, "--name", "c"), ("cluster-down", "--name", "c")):
            inv(build, *words).refused(2, f"another command (process {run.process.pid}) is making or removing lab c")
        assert "labs/c" not in inv(build, "clean").expect(0).out
        inv(build, "clean", "--all").refused(1, "c of ", "is in use", "cluster-down --all")
        run.end(30, signal.SIGINT).refused(130, "interrupted")
    assert not lab(build, "c").exists()


def test_all_wrong_options_are_said_at_once(build: Path) -> None:
    wrong = {"--nodes": "three", "--machine": "x", "--dcs": "y", "--profile": "z", "--name": "A/.."}
    words = [word for option in wrong.items() for word in option]
    inv(build, "cluster-up", *words).refused(2, *(f"{option}: " for option in wrong))


def test_without_an_image(build: Path) -> None:
    empty = build / "empty"
    empty.mkdir()
    inv(empty, *UP).refused(2, "image", "./inv build-image")
    inv(build, *UP, "--image", "/nowhere/x.qcow2").refused(2, "--image: there is no file /nowhere/x.qcow2")
    inv(build, *UP, "--image", "/etc/hosts").refused(2, "--image: /etc/hosts is no disk")
    assert not (empty / "labs").exists()


def test_a_damaged_image(build: Path) -> None:
    image = build / "x.qcow2"
    image.write_bytes(b"QFI\xfb" + os.urandom(1 << 20))
    ended = inv(build, *UP, "--name", "bad", "--image", str(image), seconds=UP_SECONDS)
    message = ended.refused(6, "x.qcow2 cannot be opened", "log:")
    written = ROOT / message.partition("log:")[2].splitlines()[0].strip()
    assert written.is_relative_to(build / "failed/lab-bad/logs")
    assert written.is_file()
    keyless(build / "failed")
    assert not lab(build, "bad").exists()
    gone(build)


def test_a_node_that_is_lost_while_the_cluster_forms(build: Path) -> None:
    with Inv(build, "cluster-up", "--name", "lost", "--nodes", "2") as run:
        run.reaches(lambda: cluster_forms(run), "forming", 60)
        keepers = keepers_of(build)
        pids = [n for n, words in processes_of(build) if words.startswith("systemd-nspawn") and "pg-srv2" in words]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        ended = run.end(60)
    ended.refused(7, "pg-srv2: ", "systemd-nspawn ended with code", "failed/lab-lost")
    kept = build / "failed/lab-lost"
    assert "patroni" in (kept / f"{NODE}-journal.log").read_text(encoding="utf-8")
    assert (kept / "machines/pg-srv2/console.log").is_file()
    keyless(kept)
    gone(build, keepers=keepers)
    assert not lab(build, "lost").exists()
