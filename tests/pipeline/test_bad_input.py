"""Bad input ends in one clear error and exit code, and nothing is half written."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import Scratch
from tests.pipeline.harness import DOWNLOADS, ROOT, STAGES, Inv, half_made, inv, log_says, results

BROKEN = """\
images:
  debian-12:
    disk_size: 8
    format: [qcow2]
consul:
  source: file
build:
  cpus: two
verifying:
  cpus: 2
"""
SOURCES = (
    "tasks.py",
    "task_parts.py",
    "tasks_cluster.py",
    "tasks_publish.py",
    "foundry",
    "requirements",
    "templates",
    "files",
    "packer",
    "debian",
    "patroni_node",
)
LINKED = ("archive", "chroot", "patroni-venv", "patroni-node", "bootstrap")
# Not even root may run a file that nobody may run: a search of PATH passes it by.
MASKED = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
# A small file system as build folder, filled from $3; afterwards the names of what is half made on it, on stdout.
SMALL = (
    'mount -t tmpfs -o "size=$1" tmpfs "$2" && cp -a "$3"/. "$2" && shift 3 && setpriv --pdeathsig KILL -- "$@"'
    "; code=$?;"
    ' find "$FOUNDRY_BUILD" -mindepth 2 -maxdepth 3 -name ".*.*" -o -name "*.partial" -o -name stage.json; exit "$code"'
)


def within(script: str, *words: str) -> list[str]:
    """A command that runs another one in a mount namespace of its own, after script."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *words]


def test_broken_foundry_yml(scratch: Scratch, tmp_path: Path) -> None:
    """Every error at once, each with file, line and key."""
    project = tmp_path / "project"
    project.mkdir()
    for name in SOURCES:
        source = ROOT / name
        shutil.copytree(source, project / name) if source.is_dir() else shutil.copy(source, project)
    (project / "foundry.yml").write_text(BROKEN, encoding="utf-8")
    build = scratch()
    ended = inv(build, "build-image", program=[sys.executable, "-m", "invoke"], cwd=project)
    ended.refused(
        2,
        "foundry.yml has 5 errors",
        "foundry.yml:3: images.debian-12.disk_size: must be a size",
        "foundry.yml:4: images.debian-12.format: unknown key; did you mean formats?",
        "foundry.yml:5: consul.path: is needed with source: file",
        "foundry.yml:8: build.cpus: must be a whole number, not 'two'",
        "foundry.yml:9: verifying: unknown key; did you mean verify?",
    )
    assert list(build.iterdir()) == []


def test_bad_settings_of_the_command_line(scratch: Scratch) -> None:
    build = scratch()
    words = ["--set=build.memory=1", "--set=images.debian-12.suite=bullseye"]
    ended = inv(build, "build-image", *words, env={"FOUNDRY_SET": "build.cpus=none"})
    ended.refused(
        2, "has 3 errors", "--set: build.memory: unknown key", "images.debian-12.suite", "environment: build.cpus"
    )
    inv(build, "build-image", "--image=debian-13").refused(2, "debian-13", "did you mean debian-12?")
    assert list(build.iterdir()) == []


def test_missing_tool(scratch: Scratch, tmp_path: Path) -> None:
    build = scratch(*DOWNLOADS, *LINKED, "base")
    before = results(build)
    nothing = tmp_path / "nothing"
    nothing.touch(mode=0o644)
    packer = str(Path("/usr/bin/packer").resolve())
    ended = inv(build, "build-image", "--no-verify", "--offline", within=within(MASKED, str(nothing), packer))
    ended.refused(3, "this host has no packer", "hint: apt-get install packer")
    assert results(build) == before
    assert half_made(build) == []


def test_full_disk(scratch: Scratch) -> None:
    """Room for the archive's indexes, and not for the packages: known before the first one is fetched."""
    build, nothing = scratch(), scratch()
    ended = inv(build, "build-image", within=within(SMALL, "400m", str(build), str(nothing)))
    ended.refused(1, "archive: ", "free and needs", "hint: free some space (`./inv clean`", "FOUNDRY_BUILD")
    assert ended.out == ""


def test_full_disk_before_anything_is_fetched(scratch: Scratch) -> None:
    """apt itself would hang: it waits for ever once the disk is full under its indexes."""
    build, nothing = scratch(), scratch()
    ended = inv(build, "build-image", within=within(SMALL, "8m", str(build), str(nothing)))
    ended.refused(1, "archive: ", "free and needs", "FOUNDRY_BUILD")
    assert ended.out == ""


def test_full_disk_in_the_middle_of_a_stage(scratch: Scratch) -> None:
    """Room for a copy of the stages before it, and not for the package that is built in the chroot's tree."""
    build, earlier = scratch(), scratch("wheels", "keyring")
    for name in ("archive", "chroot"):
        found = max(scratch(name).glob(f"{name}/*/stage.json"), key=lambda p: p.stat().st_mtime)
        (earlier / name).mkdir()
        subprocess.run(["cp", "-al", found.parent, earlier / name], check=True)
    size = sum(p.lstat().st_blocks for p in earlier.rglob("*")) * 512 // 2**20 + 20
    ended = inv(
        build, "build-deb", "--offline", seconds=300, within=within(SMALL, f"{size}m", str(build), str(earlier))
    )
    assert ended.code in (1, 5), ended.err
    ended.refused(ended.code, "No space left on device")
    left = {Path(line) for line in ended.out.splitlines()}
    assert {path.name for path in left} == {"stage.json"}
    # The small package is built beside the large one, and may have found room.
    assert {path.parts[-3] for path in left} - {"patroni-node"} == {"archive", "chroot"}


def test_base_that_changed_on_disk(scratch: Scratch) -> None:
    """As long as before; the next run makes it anew."""
    build = scratch(*DOWNLOADS, *LINKED, "base")
    victim = max(build.glob("base/*/base.raw"), key=lambda p: p.parent.stat().st_mtime)
    copied = victim.with_name("copy")
    subprocess.run(["cp", "--sparse=always", victim, copied], check=True)
    with copied.open("r+b") as stream:
        stream.seek(200 * 1024 * 1024)
        stream.write(b"tampered")
    copied.replace(victim)
    ended = inv(build, "build-image", "--no-verify", "--offline")
    ended.refused(6, "base: ", str(victim), "hint: run it again: this stage will be built anew")
    assert not list(build.glob("packer/*"))
    with Inv(build, "build-image", "--no-verify", "--offline") as run:
        run.reaches(log_says(build, "base-mmdebstrap.log", "running apt-get update"), "a new base", 60)
        assert "base: building:" in run.said
        run.process.send_signal(2)
        run.end(30)


@pytest.mark.parametrize(("stage", "made_of_it"), [("bootstrap", "base"), ("chroot", "patroni-node")])
def test_folder_of_packages_that_changed_on_disk(scratch: Scratch, stage: str, made_of_it: str) -> None:
    """One file of twenty thousand, as long and as old as before."""
    build = scratch(*DOWNLOADS, *(name for name in LINKED if name != made_of_it))
    folder = max(build.glob(f"{stage}/*/stage.json"), key=lambda p: p.stat().st_mtime).parent
    victim = folder / "root/etc/passwd"
    facts, above = victim.stat(), victim.parent.stat()
    good = victim.read_text()
    victim.unlink()
    victim.write_text(good.replace("root:x:0", "toor:x:0", 1))
    os.utime(victim, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.utime(victim.parent, ns=(above.st_atime_ns, above.st_mtime_ns))
    ended = inv(build, "build-image", "--no-verify", "--offline", seconds=120)
    ended.refused(6, f"{stage}: ", str(folder / "root"), "hint: run it again: this stage will be built anew")
    assert not (folder / "stage.json").exists()
    assert not list(build.glob(f"{made_of_it}/*/stage.json"))


@pytest.mark.parametrize("name", ["patroni-venv", "patroni-node"])
def test_package_of_ours_that_changed_on_disk(scratch: Scratch, name: str) -> None:
    build = scratch(*DOWNLOADS, *LINKED, "base")
    victim = max(build.glob(f"{name}/*/{name}_*.deb"), key=lambda p: p.parent.stat().st_mtime)
    good = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(good[:-8] + b"tampered")
    ended = inv(build, "build-image", "--no-verify", "--offline")
    ended.refused(6, f"{name}: ", str(victim), "hint: run it again: this stage will be built anew")
    assert not victim.with_name("stage.json").exists()
    assert not list(build.glob("packer/*"))


def test_image_that_changed_on_disk(scratch: Scratch) -> None:
    build = scratch(*DOWNLOADS, *STAGES)
    victim = max(build.glob("images/*/*.qcow2"), key=lambda p: p.parent.stat().st_mtime)
    good = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(good[:-8] + b"tampered")
    inv(build, "verify-image").refused(6, "image: ", victim.name, "hint: `./inv build-image` makes it anew")
    ended = inv(build, "build-image", "--no-verify", "--offline").expect(0)
    assert ended.stage("images").startswith("building:")
    assert ended.stage("packer") == "reused: no input changed"


def test_another_run_is_under_way(scratch: Scratch) -> None:
    build = scratch()
    handle = os.open(build / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for task in ("build-image", "build-deb", "verify-image", "clean"):
            inv(build, task).refused(1, f"another run is using {build}", "hint:")
    finally:
        os.close(handle)


def test_not_root(scratch: Scratch) -> None:
    build = scratch()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # May read everything, wherever the project lies.
    nobody += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    inv(build, "build-image", within=nobody).refused(3, "building needs root", "hint: sudo ./inv")
    assert list(build.iterdir()) == []
