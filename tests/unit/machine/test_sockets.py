"""Where a machine's sockets lie, and what is removed with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from foundry.machine import sockets


def test_a_short_folder_is_their_own_and_stays() -> None:
    with tempfile.TemporaryDirectory(prefix="pf-test-") as name:
        folder = Path(name)
        made = sockets.make(folder)
        assert made == folder.resolve()
        sockets.remove(made, folder)
        assert folder.is_dir()


def test_beside_a_long_one_they_lie_elsewhere_and_go(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 81)
    folder.mkdir()
    made = sockets.make(folder)
    assert len(str(made)) < 80
    (made / "qmp").touch()
    sockets.remove(made, folder)
    assert not made.exists()
    assert folder.is_dir()
    sockets.remove(None, folder)
