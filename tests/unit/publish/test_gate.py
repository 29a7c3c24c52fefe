"""What may not be published, and what the refusal says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foundry import files, image, verify
from foundry.publish import gate
from foundry.publish.gate import Refused
from foundry.verify import Outcome
from tests.unit.publish.publishing import Project

SKIPPED = (
    Outcome("a", "booted", "passed", 1.0),
    Outcome("b", "rebooted", "passed", 1.0),
    Outcome("c", "booted", "skipped", 0.0),
)
LONG_AGO = (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="seconds")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.at(tmp_path)


def admit(project: Project, manifest: Path) -> verify.Verdict:
    return gate.admit(image.load(manifest.parent), project.settings, project.workspace)


def test_what_has_passed_is_admitted(project: Project) -> None:
    manifest = project.build("1")
    assert admit(project, manifest).image == image.load(manifest.parent).digest


@pytest.mark.parametrize(
    ("outcomes", "changes", "why"),
    [
        (SKIPPED, {}, "says that 1 skipped"),
        (SKIPPED[:1], {}, "no test ran"),
        ((*SKIPPED[:2], Outcome("c", "booted", "failed", 0.0)), {}, "says that 1 failed"),
        ((), {"image": "0" * 64}, "is about another image"),
        ((), {"suite": "0" * 64}, "of another test suite"),
        ((), {"ended": LONG_AGO}, "is 31 days old"),
        ((), {"machine": "container"}, "was made on a container"),
    ],
)
def test_a_verdict_that_does_not_count(
    project: Project, outcomes: tuple[Outcome, ...], changes: dict[str, Any], why: str
) -> None:
    manifest = project.build("1", *outcomes, **changes)
    with pytest.raises(Refused, match=why) as caught:
        admit(project, manifest)
    assert f"./inv verify-image --manifest {manifest}" in (caught.value.hint or "")


def _flip(manifest: Path) -> None:
    disk = image.load(manifest.parent).main
    data = bytearray(disk.read_bytes())
    data[7] ^= 1
    disk.write_bytes(data)


def _no_disk(manifest: Path) -> None:
    image.load(manifest.parent).main.unlink()


def _other_digest(manifest: Path) -> None:
    facts = dict(image.load(manifest.parent).manifest)
    files.write_json(manifest, {**facts, "files": [{**facts["files"][0], "sha256": "0" * 64}]})


@pytest.mark.parametrize("change", [_flip, _no_disk, _other_digest])
def test_bytes_that_are_not_the_manifests(project: Project, change: Callable[[Path], None]) -> None:
    manifest = project.build("1")
    change(manifest)
    with pytest.raises(Refused, match="was changed after it was built") as caught:
        admit(project, manifest)
    assert "1.qcow2 is not the file" in (caught.value.details or "")


def test_no_verdict(project: Project) -> None:
    manifest = project.build("1")
    verify.verdict_path(image.load(manifest.parent).main).unlink()
    with pytest.raises(Refused, match="there is no verdict"):
        admit(project, manifest)
