"""The key for trying out, as it really is: other tests use one whose agent stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry import gpg

pytestmark = pytest.mark.real_process


def test_it_is_made_once_signs_and_leaves_no_agent_behind(tmp_path: Path) -> None:
    made, again = (gpg.throw_away(tmp_path / "home", "Somebody") for _ in range(2))
    assert again == made
    assert made.user == "Somebody"
    (tmp_path / "text").write_text("text", encoding="utf-8")
    made.detach(tmp_path / "text", tmp_path / "signature")
    gpg.check(tmp_path / "text", tmp_path / "signature", made.public(tmp_path / "keys"))
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in read(path)]
    assert running == []


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
