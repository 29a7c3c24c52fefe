"""A second build makes nothing anew and says why."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tests.pipeline.harness import STAGES, Ended, half_made, inv, results


@pytest.fixture(scope="module")
def second(built: Path) -> Ended:
    return inv(built, "build-image", "--no-verify").expect(0)


def test_every_stage_is_reused_and_says_why(second: Ended) -> None:
    assert {name: second.stage(name) for name in STAGES} == dict.fromkeys(STAGES, "reused: no input changed")


def test_a_pipe_gets_plain_lines(second: Ended) -> None:
    assert second.err
    for line in second.err.splitlines():
        assert re.fullmatch(r"\d\d:\d\d:\d\d [\w-]+: .+", line), line
    assert "\x1b" not in second.err + second.out


def test_the_last_lines_name_the_image(second: Ended) -> None:
    rows = dict(line.split(maxsplit=1) for line in second.out.splitlines()[-5:])
    image = Path(rows["image"])
    assert hashlib.sha256(image.read_bytes()).hexdigest() == rows["sha256"]
    assert rows["size"] == f"{image.stat().st_size / 1e6:.1f} MB"
    assert "must not be published" in rows["verdict"]
    assert [word.split()[0] for word in rows["stages"].split(", ")] == list(STAGES)


def test_a_build_names_seconds_for_each_stage(first: tuple[Path, Ended]) -> None:
    stages = next(line for line in first[1].out.splitlines() if line.startswith("stages"))
    assert re.fullmatch(r"stages +(?:[\w-]+ (?:reused|\d+\.\d s)(?:, |$)){8}", stages)


def test_nothing_half_made_stays(second: Ended, built: Path) -> None:
    assert half_made(built) == []
    assert {name.split("/")[0] for name in results(built)} == set(STAGES)


def test_offline_uses_the_last_fetch(built: Path) -> None:
    """With a mirror that does not exist, so that it would be noticed if one was asked."""
    nowhere = "http://127.0.0.1:9/debian"
    setting = {"FOUNDRY_SET": f"archive.mirror={nowhere} archive.security_mirror={nowhere}"}
    ended = inv(built, "build-deb", "--offline", env=setting).expect(0)
    assert ended.stage("archive") == "reused: --offline: Debian's archive was not asked"
    names = sorted(p.name.partition("_")[0] for p in (built / "deb").iterdir())
    assert names == ["consul", "patroni-node", "patroni-venv"]
    for path in (built / "deb").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() in ended.out
