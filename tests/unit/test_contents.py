"""docs/building.md has a reason for each package of an image and each path that is left out, and for no others."""

from __future__ import annotations

import re
from pathlib import Path

from foundry import archive
from tests.unit.test_docs import CODE, tables

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/building.md").read_text(encoding="utf-8")
RULES = ROOT / "templates/base/setup/etc/dpkg/dpkg.cfg.d/patroni-foundry.j2"


def spans(text: str) -> list[str]:
    return [span for _, span in CODE.findall(text)]


def test_every_package_has_a_reason() -> None:
    rows = list(tables(PAGE, "package"))
    assert [row for row in rows if len(row) != 2 or not row[1]] == []
    assert sorted(name for row in rows for name in spans(row[0])) == sorted(
        [*archive.BASE_PACKAGES, *archive.NODE_DEPENDENCIES]
    )


def test_every_path_that_is_left_out_has_a_reason() -> None:
    rows = list(tables(PAGE, "path"))
    assert [row for row in rows if len(row) != 3 or not re.fullmatch(r"\d+(\.\d)?", row[1]) or not row[2]] == []
    parts = [row[0].partition(" but ") for row in rows]
    said = [f"path-exclude={path}" for out, _, _ in parts for path in spans(out)]
    said += [f"path-include={path}" for _, _, but in parts for path in spans(but)]
    lines = RULES.read_text(encoding="utf-8").splitlines()
    assert sorted(said) == sorted(line for line in lines if not line.startswith("#"))
