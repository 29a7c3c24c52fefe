"""The other tasks, on a build folder of their own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.pipeline.conftest import Scratch
from tests.pipeline.harness import DOWNLOADS, STAGES, inv, results


def test_config_as_json_says_where_each_value_comes_from(scratch: Scratch) -> None:
    build = scratch()
    ended = inv(build, "config", "--json", "--set=build.cpus=3", env={"FOUNDRY_SET": "build.memory_mib=4096"}).expect(0)
    rows = {row["key"]: (row["value"], row["source"]) for row in json.loads(ended.out)}
    assert rows["build.cpus"] == (3, "--set")
    assert rows["build.memory_mib"] == (4096, "environment")
    assert rows["images.debian-12.suite"][1].startswith("foundry.yml:")
    assert rows["verify.boot_timeout_s"][1] == "default"
    assert ended.err == ""
    assert results(build) == set()
    assert not (build / "lock").exists()


def test_config_as_a_table(scratch: Scratch) -> None:
    ended = inv(scratch(), "config").expect(0)
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["build.cpus", "2"] in [row[:2] for row in rows]


def test_doctor_as_json(scratch: Scratch) -> None:
    ended = inv(scratch("host", "base"), "doctor", "--json").expect(0)
    rows = {row["name"]: row for row in json.loads(ended.out)}
    assert {"KVM", "disk", "memory", "namespaces", "packer", "mmdebstrap"} <= set(rows)
    assert [row for row in rows.values() if row["needed"] and not row["ok"]] == []


def test_doctor_for_people(scratch: Scratch) -> None:
    ended = inv(scratch("host", "base"), "doctor").expect(0)
    assert ended.out.splitlines()[-1] == "this host can build and verify images"


@pytest.fixture
def cluttered(scratch: Scratch) -> Path:
    """A whole build with an older result, a killed run's scratch folders, and failures beside it."""
    build = scratch(*DOWNLOADS, *STAGES)
    older = build / "patroni-node" / "0123456789abcdef"
    shutil.copytree(next(build.glob("patroni-node/*/stage.json")).parent, older)
    os.utime(older, (0, 0))
    (build / "base" / ".0123456789abcdef.x1").mkdir()
    (build / "work" / "verify-1").mkdir(parents=True)
    (build / "failed" / "debian-12").mkdir(parents=True)
    return build


def test_clean_keeps_downloads_images_and_newest_results(cluttered: Path) -> None:
    def images() -> set[Path]:
        return set((cluttered / "images").rglob("*"))

    before, pool = images(), set((cluttered / "pool").iterdir())
    ended = inv(cluttered, "clean").expect(0)
    assert ended.out.splitlines()[-1].startswith("freed ")
    assert images() == before
    assert set((cluttered / "pool").iterdir()) == pool
    assert not list(cluttered.glob("*/.*.*")) + list(cluttered.glob("work/*")) + list(cluttered.glob("failed/*"))
    assert {name.split("/")[0] for name in results(cluttered)} == set(STAGES)
    assert all(len(list(cluttered.glob(f"{stage}/*/stage.json"))) == 1 for stage in STAGES if stage != "images")


def test_a_build_after_clean_reuses_what_was_kept(cluttered: Path) -> None:
    inv(cluttered, "clean").expect(0)
    ended = inv(cluttered, "build-image", "--no-verify", "--offline").expect(0)
    assert {ended.stage(name) for name in STAGES[1:]} == {"reused: no input changed"}


def test_clean_all_leaves_nothing(cluttered: Path) -> None:
    inv(cluttered, "clean", "--all").expect(0)
    assert [p.name for p in cluttered.iterdir()] == ["lock"]
