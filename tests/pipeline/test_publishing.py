"""From the image that was just built and proved to clusters of what a store serves, as publisher and as consumer."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from foundry.workspace import Workspace
from tests.pipeline.harness import DOWNLOADS, ROOT, STAGES, copy, gone, inv
from tests.pipeline.published import flipped, proved

NAME = "debian-12"


@dataclass(frozen=True)
class Place:
    """A publisher's build folder, a consumer's, and the store between them."""

    folder: Path

    @property
    def publisher(self) -> Path:
        return self.folder / "publisher"

    @property
    def consumer(self) -> Path:
        return self.folder / "consumer"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def key(self) -> Path:
        return self.folder / "key.asc"

    def publish(self, *words: str, seconds: float = 120) -> str:
        """Do something as the publisher, and return what it said."""
        settings = ("--set", f"publish.to={self.store}", "--set", "publish.key=throw-away")
        return inv(self.publisher, *words, *settings, seconds=seconds).expect(0).out

    def consume(self, *words: str, seconds: float = 120) -> str:
        """Do something with the public key alone."""
        settings = ("--set", f"publish.to={self.store}", "--set", f"publish.public_key={self.key}")
        return inv(self.consumer, *words, *settings, seconds=seconds).expect(0).out

    def newest(self) -> str:
        """The version that was built last."""
        pointer = json.loads((self.publisher / f"images/{NAME}.json").read_text())
        manifest = self.publisher / "images" / pointer["folder"] / "manifest.json"
        return str(json.loads(manifest.read_text())["version"])

    def version(self, version: str) -> Path:
        return self.store / "images" / NAME / version


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    ours = Workspace.at(ROOT).build
    found = Place(ours / "publish-tests" / secrets.token_hex(3))
    copy(ours, found.publisher, (*DOWNLOADS, *STAGES))
    found.consumer.mkdir()
    proved(found.publisher)
    yield found
    inv(found.consumer, "cluster-down", "--all", seconds=120)
    gone(found.folder)
    shutil.rmtree(found.folder)


@pytest.fixture(scope="module")
def released(place: Place) -> tuple[str, str]:
    """Two versions, of which the channel stable had the second one and was taken back to the first."""
    first = place.newest()
    assert f"channel  candidate: nothing -> {first}" in place.publish("publish")
    assert "sent     0 B" in place.publish("publish")
    shutil.copyfile(place.store / "key.asc", place.key)
    assert f"nothing -> {first}" in place.publish("promote", first)
    checked = place.consume("verify-release", str(place.store))
    assert f"version  {NAME} {first}, built " in checked
    _without_this_program(place, first)
    up = place.consume("cluster-up", "--image", "stable", "--nodes", "1", seconds=150)
    assert "| pg-srv1 | 10.129.0.21 | Leader | running |" in up
    assert f"of {NAME}-{first}" in up

    words = ("--set", f"images.{NAME}.packages=[jq]", "--set", f"images.{NAME}.exclude=[jit]")
    place.publish("build-image", *words, seconds=1800)
    second = place.newest()
    assert second != first
    assert f"channel  candidate: {first} -> {second}" in place.publish("publish", seconds=180)
    differs: dict[str, Any] = json.loads(place.consume("diff", "stable", "candidate", "--json"))
    assert (differs["old"], differs["new"]) == (first, second)
    added = {c["name"] for c in differs["packages"] if c["kind"] == "added"}
    assert "jq" in added
    assert {c["name"] for c in differs["configuration"]} == {f"images.{NAME}.packages", f"images.{NAME}.exclude"}
    inode = disk(place, second).stat().st_ino
    assert f"channel  stable of {NAME}: {first} -> {second}" in place.publish("promote", second)
    assert f"version  {NAME} {second}" in place.consume("verify-release", str(place.store))
    assert f"channel  stable of {NAME}: {second} -> {first}" in place.publish("rollback", "stable")
    assert f"version  {NAME} {first}" in place.consume("verify-release", str(place.store))
    assert disk(place, second).stat().st_ino == inode
    return first, second


def disk(place: Place, version: str) -> Path:
    return next(place.version(version).glob("*.qcow2"))


def _without_this_program(place: Place, version: str) -> None:
    there = place.version(version)
    binary = place.folder / "key.gpg"
    subprocess.run(["gpg", "--batch", "--dearmor", "--output", binary, place.key], check=True)
    subprocess.run(["gpgv", "--keyring", binary, "SHA256SUMS.gpg", "SHA256SUMS"], cwd=there, check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=there, check=True)


def test_two_versions_are_built_proved_published_compared_promoted_and_taken_back(
    place: Place, released: tuple[str, str]
) -> None:
    first, second = released
    listed = json.loads(place.consume("releases", "--json"))
    assert listed["versions"] == {NAME: [first, second]}
    assert listed["channels"] == {NAME: {"candidate": second, "stable": first}}
    assert [e["action"] for e in listed["log"]] == ["publish", "promote", "publish", "promote", "rollback"]
    about = listed["about"][NAME][second]
    assert about["verdict"]["passed"] == about["verdict"]["of"] > 100
    assert "added" in about["packages"]
    table = place.consume("releases")
    assert any(first in line and "stable" in line for line in table.splitlines())
    changes = (place.version(second) / "changes.md").read_text()
    assert "`jq`: added" in changes


def test_what_was_published_is_what_its_formats_say(place: Place, released: tuple[str, str]) -> None:
    for version in released:
        folder = place.version(version)
        text = (folder / "sbom.cdx.json").read_text(encoding="utf-8")
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        assert not validate_full_spdx_document(parse_file(str(folder / "sbom.spdx.json")))
    second = json.loads((place.version(released[1]) / "sbom.cdx.json").read_text())
    assert "jq" in {c["name"] for c in second["components"]}


def test_a_machine_of_the_second_version_has_what_is_new_in_it(place: Place, released: tuple[str, str]) -> None:
    _, second = released
    inv(place.consumer, "cluster-down", "--all", seconds=120).expect(0)
    up = place.consume("cluster-up", "--image", "candidate", "--nodes", "1", seconds=150)
    assert f"of {NAME}-{second}" in up

    def ask(command: str) -> str:
        return inv(place.consumer, "cluster-ssh", "pg-srv1", "--command", command).expect(0).out.strip()

    assert ask("jq --version").startswith("jq-1.6")
    # And not what was left out, which PostgreSQL does without.
    assert ask("sudo -u postgres psql -XAtqc 'SET jit = on; SELECT pg_jit_available()'") == "f"
    sizes = [disk(place, version).stat().st_size for version in released]
    assert sizes[1] < sizes[0] - 40_000_000


def test_one_byte_of_the_image_is_another(place: Place, released: tuple[str, str]) -> None:
    pointer = json.loads((place.publisher / f"images/{NAME}.json").read_text())
    made = next((place.publisher / "images" / pointer["folder"]).glob("*.qcow2"))
    whole = made.with_suffix(".whole")
    made.rename(whole)
    shutil.copyfile(whole, made)
    flipped(made, 100_000_000)
    try:
        other = place.folder / "other"
        ended = inv(place.publisher, "publish", "--to", str(other), "--set", "publish.key=throw-away")
        ended.refused(11, "was changed after it was built", f"{made.name} is not the file", "./inv build-image")
        assert not other.exists()
    finally:
        whole.rename(made)


def test_a_byte_of_what_is_served_is_another(place: Place, released: tuple[str, str]) -> None:
    served = disk(place, released[0])
    flipped(served, served.stat().st_size - 1)
    target = place.folder / "x"
    ended = inv(place.consumer, "verify-release", str(place.store), "--key", str(place.key), "--keep", str(target))
    ended.refused(13, f"{served.name} is not what SHA256SUMS says")
    assert not target.exists()
