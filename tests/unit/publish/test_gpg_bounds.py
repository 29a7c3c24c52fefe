"""What a store serves as its publisher's key may be a few bytes that never end."""

from __future__ import annotations

import bz2
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import gpg
from tests.unit.publish.gpg_home import USER, Home

pytestmark = pytest.mark.real_process
NAME = b"A" * 200


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A publisher's key, as its readers were given it."""
    home = Home(tmp_path_factory.mktemp("k") / "h")
    try:
        home.key()
        yield home.export(USER, home.folder / "given.gpg")
    finally:
        home.end()


def with_names(public: Path, count: int) -> bytes:
    """The key with so many names, compressed: a packet of the old format (RFC 4880, sections 4.2.1 and 5.6)."""
    data = public.read_bytes()
    assert data[0] == 0x98
    return b"\xa3\x03" + bz2.compress(data[: 2 + data[1]] + (bytes([0xB4, len(NAME)]) + NAME) * count)


def test_a_key_of_a_few_bytes_that_has_a_hundred_thousand_names(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gpg took a minute and 1.2 GB for three million, and went on."""
    monkeypatch.setattr(gpg, "_SECONDS", 2)
    served = with_names(public, 100_000)
    assert len(served) < 1000
    begin = time.monotonic()
    merged = gpg.merged(public, [served], tmp_path)
    assert time.monotonic() - begin < 15
    assert gpg.primary(merged) == gpg.primary(public)
