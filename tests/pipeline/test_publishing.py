"""From the image that was just built and proved to a cluster of what a store serves, as publisher and as consumer."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, copy, gone, inv

KEY = ("--set", "publish.key=throw-away")


@pytest.fixture(scope="module")
def build() -> Iterator[Path]:
    """A build folder that has the newest image and its verdict; beside it, the store."""
    ours = Workspace.at(ROOT).build
    parent = ours / "publish-tests" / secrets.token_hex(3)
    yield copy(ours, parent / "build", ["images"])
    inv(parent / "build", "cluster-down", "--all", seconds=120)
    gone(parent / "build")
    shutil.rmtree(parent)


def to(build: Path) -> tuple[str, ...]:
    return ("--set", f"publish.to={build.parent / 'store'}", *KEY)


def release(build: Path) -> tuple[Path, dict[str, object]]:
    pointer = json.loads((build / "images" / "debian-12.json").read_text())
    folder = build / "images" / pointer["folder"]
    return folder, json.loads((folder / "manifest.json").read_text())


def test_from_the_proved_image_to_a_cluster_of_what_is_served(build: Path) -> None:
    _, manifest = release(build)
    version, store = str(manifest["version"]), build.parent / "store"
    said = inv(build, "publish", *to(build)).expect(0).out
    assert f"channel  candidate: nothing -> {version}" in said
    again = inv(build, "publish", *to(build)).expect(0).out
    assert "sent     0 B" in again
    assert f"nothing -> {version}" in inv(build, "promote", version, *to(build)).expect(0).out

    listed = json.loads(inv(build, "releases", "--json", *to(build)).expect(0).out)
    assert listed["channels"] == {"debian-12": {"candidate": version, "stable": version}}
    key = build.parent / "key.asc"
    shutil.copyfile(store / "key.asc", key)
    checked = inv(build, "verify-release", str(store), "--key", str(key)).expect(0).out
    assert f"version  debian-12 {version}" in checked
    # And without this program.
    there = store / "images" / "debian-12" / version
    binary = build.parent / "key.gpg"
    subprocess.run(["gpg", "--batch", "--dearmor", "--output", binary, key], check=True)
    subprocess.run(["gpgv", "--keyring", binary, "SHA256SUMS.gpg", "SHA256SUMS"], cwd=there, check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=there, check=True)

    up = inv(build, "cluster-up", "--image", "stable", "--nodes", "1", *to(build), seconds=150).expect(0).out
    assert "| pg-srv1 | 10.129.0.21 | Leader | running |" in up
    assert f"of debian-12-{version}" in up


def test_one_byte_of_the_image_is_another(build: Path) -> None:
    folder, _ = release(build)
    disk = next(folder.glob("*.qcow2"))
    whole = disk.with_suffix(".whole")
    disk.rename(whole)
    shutil.copyfile(whole, disk)
    with disk.open("r+b") as stream:
        stream.seek(100_000_000)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))
    try:
        ended = inv(build, "publish", "--to", str(build.parent / "other"), *KEY)
        ended.refused(11, "was changed after it was built", f"{disk.name} is not the file", "./inv build-image")
        assert not (build.parent / "other").exists()
    finally:
        whole.rename(disk)


def test_a_byte_of_what_is_served_is_another(build: Path) -> None:
    _, manifest = release(build)
    store = build.parent / "store"
    disk = next((store / "images" / "debian-12" / str(manifest["version"])).glob("*.qcow2"))
    with disk.open("r+b") as stream:
        stream.seek(-1, 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([byte ^ 1]))
    ended = inv(build, "verify-release", str(store), "--key", str(build.parent / "key.asc"), "--keep", str(build / "x"))
    ended.refused(13, f"{disk.name} is not what SHA256SUMS says")
    assert not (build / "x").exists()
