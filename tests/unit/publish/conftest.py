"""What is in the small images of these tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foundry.publish import contents
from tests.unit.publish import small_image


@pytest.fixture
def small_contents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk of these tests is a line of text; what it holds lies beside it."""

    def read(image: Path, manifest: Mapping[str, Any], scratch: Path) -> contents.Contents:
        root = tmp_path / "small"
        return contents.found(root if root.exists() else small_image.tree(root), manifest)

    monkeypatch.setattr("foundry.publish.documents.contents.read", read)
