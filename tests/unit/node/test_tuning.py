"""PGTune's formulas, against what PGTune itself answers (pgtune.tsv) and the tutorial's twelve lines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from patroni_node import tuning, tuning_command
from patroni_node.hardware import MIB, Hardware
from patroni_node.tuning import Wishes

GIB = 1024 * MIB
TUTORIAL = {
    "max_connections": 100,
    "shared_buffers": "1GB",
    "effective_cache_size": "3GB",
    "maintenance_work_mem": "256MB",
    "checkpoint_completion_target": 0.9,
    "wal_buffers": "16MB",
    "default_statistics_target": 100,
    "random_page_cost": 1.1,
    "effective_io_concurrency": 200,
    "work_mem": "2621kB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
}


def golden() -> list[dict[str, str]]:
    lines = Path(__file__).with_name("pgtune.tsv").read_text(encoding="utf-8").splitlines()
    names = lines[1].removeprefix("# memory in MiB").split("\t")
    return [dict(zip(["memory", *names[1:]], line.split("\t"), strict=True)) for line in lines[2:]]


def test_the_tutorials_machine_gets_the_tutorials_twelve_values() -> None:
    assert tuning.parameters(Hardware(4 * GIB, 2), Wishes(max_connections=100)) == TUTORIAL


def test_every_golden_answer_of_pgtune() -> None:
    rows = golden()
    assert len(rows) > 200
    assert {"512", "98304"} <= {row["memory"] for row in rows}
    assert {"1", "64"} <= {row["cpus"] for row in rows}
    for row in rows:
        machine = Hardware(int(row["memory"]) * MIB, int(row["cpus"]))
        wishes = Wishes(row["workload"], row["storage"], int(row["max_connections"]))
        found = {name: str(value) for name, value in tuning.parameters(machine, wishes).items()}
        facts = ("memory", "cpus", "workload", "storage", "connections")
        expected = {name: value for name, value in row.items() if name not in facts and value != "-"}
        assert found == expected, row


@pytest.mark.parametrize(
    ("workload", "expected"), [("web", 200), ("oltp", 300), ("dw", 40), ("mixed", 100), ("desktop", 25)]
)
def test_connections_by_workload(workload: str, expected: int) -> None:
    assert tuning.parameters(Hardware(GIB, 1), Wishes(workload))["max_connections"] == expected


def test_wal_buffers_have_a_least_size() -> None:
    """PGTune's selectWalBuffers: 32 kB at least."""
    assert tuning._wal_buffers(256 * tuning.KB) == 32 * tuning.KB
    assert tuning._wal_buffers(0) == 32 * tuning.KB


def test_no_member_is_left_without_replication() -> None:
    """PGTune's desktop has wal_level=minimal."""
    assert not {"wal_level", "max_wal_senders"} & set(tuning.parameters(Hardware(GIB, 1), Wishes("desktop")))


def test_wishes_win_over_the_machine_and_explicit_values_over_all() -> None:
    wishes = Wishes(memory=4 * GIB, cpus=2, max_connections=100, parameters={"work_mem": "8MB", "jit": "off"})
    found = tuning.parameters(Hardware(64 * GIB, 32), wishes)
    assert found == TUTORIAL | {"work_mem": "8MB", "jit": "off"}


@pytest.mark.parametrize(
    ("disk", "most", "least"),
    [(100, "4GB", "1GB"), (16, "4GB", "1GB"), (8, "2GB", "1GB"), (2, "512MB", "512MB")],
)
def test_wal_leaves_room_on_the_disk(disk: int, most: str, least: str) -> None:
    found = tuning.parameters(Hardware(4 * GIB, 2, disk * GIB), Wishes())
    assert (found["max_wal_size"], found["min_wal_size"]) == (most, least)


def test_a_tiny_disk_still_gets_a_size_that_postgresql_takes() -> None:
    assert tuning.parameters(Hardware(GIB, 1, 10 * MIB), Wishes())["max_wal_size"] == "80MB"


def test_what_must_agree_is_the_clusters() -> None:
    local, cluster = tuning.split(tuning.parameters(Hardware(16 * GIB, 8), Wishes()))
    assert cluster == {"max_connections": 100, "max_worker_processes": 8}
    assert local["shared_buffers"] == "4GB"
    assert local["max_parallel_workers"] == 8


def test_huge_pages_only_where_they_are_worth_it() -> None:
    def pages(memory: int, **explicit: str) -> int:
        return tuning.huge_pages(tuning.parameters(Hardware(memory * GIB, 8), Wishes(parameters=explicit)))

    assert pages(31) == 0
    assert 8 * 512 < pages(32) < 8 * 512 * 1.05
    assert pages(64) > 16 * 512
    assert pages(64, huge_pages="off") == 0
    assert pages(4, shared_buffers="10GB") > 10 * 512
    assert pages(64, shared_buffers="many") == 0


@pytest.mark.parametrize(("text", "mib"), [("4096MiB", 4096), ("4GB", 4096), ("4GiB", 4096), ("1TB", 1024 * 1024)])
def test_sizes(text: str, mib: int) -> None:
    assert tuning.parse_size(text) == mib * MIB


@pytest.mark.parametrize("text", ["4096", "4 GB", "0GB", "-1GB", "4gb", "4KB", "", "1e3MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        tuning.parse_size(text)


def command(words: str) -> int:
    parser = argparse.ArgumentParser()
    tuning_command.add_options(parser)
    return tuning_command.run(parser.parse_args(words.split()))


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--memory 4096MiB --cpus 2 --workload mixed --storage ssd --connections 100 --json"
    assert command(words) == 0
    assert json.loads(capsys.readouterr().out) == TUTORIAL


def test_the_command_prints_lines_of_postgresql_conf(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--memory 4GB --cpus 4 --disk 8GB") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "max_wal_size = 2GB" in lines
    assert "max_parallel_workers = 4" in lines


@pytest.mark.parametrize("words", ["--memory 4", "--cpus 0 --memory 1GB", "--connections 3", "--disk much"])
def test_the_command_refuses_in_one_sentence(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(words) == 64
    assert len(capsys.readouterr().err.splitlines()) == 1
