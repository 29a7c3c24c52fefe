"""Ctrl-C at any moment: nothing runs on, nothing stays mounted, nothing is half made, and the next run works."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.pipeline.conftest import Scratch
from tests.pipeline.harness import (
    DOWNLOADS,
    STAGES,
    Inv,
    copy,
    gone,
    guest_runs,
    half_made,
    inv,
    log_says,
    nothing_stays,
    results,
    temporaries,
)

CTRL_C = [signal.SIGINT, signal.SIGTERM]
MACHINES = ["vm", "container"]
BEFORE_BOOTSTRAP = (*DOWNLOADS, "archive", "chroot", "patroni-venv", "patroni-node")


def ends_clean(run: Inv, number: signal.Signals) -> None:
    """What must hold after a signal that lets the run clean up after itself."""
    before = results(run.build)
    ended = run.end(30, number)
    ended.refused(130, "interrupted", "finished stages are reused")
    gone(run.build)
    assert half_made(run.build) == []
    assert results(run.build) == before


@pytest.mark.parametrize(
    ("number", "moment"),
    [(signal.SIGINT, "installing essential packages"), (signal.SIGTERM, "extracting archives")],
)
def test_in_mmdebstrap(scratch: Scratch, number: signal.Signals, moment: str) -> None:
    build = scratch(*BEFORE_BOOTSTRAP)
    before = temporaries()
    with Inv(build, "build-image", "--no-verify", "--offline") as run:
        run.reaches(log_says(build, "bootstrap-mmdebstrap.log", moment), moment, 90)
        ends_clean(run, number)
    assert not [*build.glob("bootstrap/*"), *build.glob("base/*")]
    nothing_stays(before)


def build_in(machine: str) -> tuple[str, ...]:
    """The words of a build that has come as far as Packer."""
    return ("build-image", "--no-verify", "--offline", "--set", f"build.machine={machine}")


def test_killed_at_one_moment_after_the_other_then_the_next_run_works(scratch: Scratch, built: Path) -> None:
    """SIGKILL leaves no time to clean up, so each next run does, and comes further."""
    build = scratch(*DOWNLOADS, "archive", "patroni-venv", "patroni-node")
    before = temporaries()
    with Inv(build, *build_in("vm")) as run:
        # Two of them, side by side.
        for stage in ("bootstrap", "chroot"):
            moment = "installing essential packages"
            run.reaches(log_says(build, f"{stage}-mmdebstrap.log", moment), f"{stage}: {moment}", 90)
        killed(run)
    assert not [*build.glob("bootstrap/*/stage.json"), *build.glob("chroot/*/stage.json")]
    nothing_stays(before)

    # The other one would cost another minute and tell nothing more.
    copy(built, build, ["chroot"])
    for machine, stage, how in (("vm", "bootstrap", "building: first build"), ("container", "packer", "building: ")):
        left = half_made(build)
        with Inv(build, *build_in(machine)) as run:
            run.reaches(guest_runs(build, machine), f"the guest of Packer ({machine})", 400)
            assert f"{stage}: {how}" in run.said
            assert not set(left) & set(half_made(build))
            killed(run)
        assert half_made(build)

    ended = inv(build, *build_in("container"), seconds=120).expect(0)
    assert ended.stage("base") == "reused: no input changed"
    gone(build)
    assert half_made(build) == []
    assert {name.split("/")[0] for name in results(build)} == set(STAGES)
    nothing_stays(before)


def killed(run: Inv) -> None:
    """End a run by SIGKILL; nothing of it may run on."""
    assert run.end(10, signal.SIGKILL).code == -signal.SIGKILL
    gone(run.build)


@pytest.mark.parametrize("number", CTRL_C)
@pytest.mark.parametrize("machine", MACHINES)
def test_in_the_guest_of_packer(scratch: Scratch, number: signal.Signals, machine: str) -> None:
    build = scratch(*BEFORE_BOOTSTRAP, "base")
    before = temporaries()
    with Inv(build, *build_in(machine)) as run:
        run.reaches(guest_runs(build, machine), "the guest of Packer", 60)
        ends_clean(run, number)
    assert not list(build.glob("packer/*"))
    nothing_stays(before)


def test_a_guest_that_never_comes_up(scratch: Scratch) -> None:
    build = scratch(*BEFORE_BOOTSTRAP, "base")
    ended = inv(build, *build_in("vm"), "--set", "build.boot_timeout_s=10", seconds=90)
    message = ended.refused(7, "packer: the guest did not answer ssh within 10s", "log:", "hint:")
    lines = message.splitlines()
    # The kernel is quiet and may not have got to its first word.
    assert lines[lines.index("  the serial console's last lines:") + 1].strip()
    assert not lines[lines.index("  the serial console's last lines:") + 1].startswith("  log:")
    gone(build)
    assert half_made(build) == []
    assert not list(build.glob("packer/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_in_the_guest_of_verify(scratch: Scratch, number: signal.Signals) -> None:
    build = scratch(*DOWNLOADS, "images", "base")
    newest = json.loads((build / "images/debian-12.json").read_text(encoding="utf-8"))["folder"]
    before = temporaries()
    with Inv(build, "verify-image") as run:
        run.reaches(guest_runs(build, "vm"), "the guest of verify", 60)
        if number == signal.SIGINT:
            ends_clean(run, number)
        else:
            assert run.end(10, number).code == -number
    gone(build)
    assert not list(build.glob(f"images/{newest}/*.verdict*"))
    if number == signal.SIGKILL:
        shutil.rmtree(build / "images")
        inv(build, "verify-image").refused(2, "holds no image")
        assert half_made(build) == []
    nothing_stays(before)
