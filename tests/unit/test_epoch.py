from __future__ import annotations

from pathlib import Path

import pytest

from foundry import epoch
from foundry.errors import CorruptArtifact

CHANGELOG = """\
patroni-foundry (0.2.0) bookworm; urgency=medium

  * A later one.

 -- Somebody <s@example.org>  Sun, 22 Nov 2026 13:00:00 +0100

patroni-foundry (0.1.0) bookworm; urgency=medium

  * An earlier one.

 -- Somebody <s@example.org>  Sun, 01 Nov 2026 12:00:00 +0000
"""


def deb(path: Path, made: int) -> Path:
    path.write_bytes(
        b"!<arch>\n" + b"debian-binary   " + str(made).ljust(12).encode() + b"0     0     100644  4         `\n2.0\n"
    )
    return path


def test_it_is_the_newest_package_s(tmp_path: Path) -> None:
    assert epoch.of([deb(tmp_path / "a.deb", 1700000000), deb(tmp_path / "b.deb", 1600000000)]) == 1700000000


def test_our_own_changelog_counts_with_its_newest_entry(tmp_path: Path) -> None:
    changelog = tmp_path / "changelog"
    changelog.write_text(CHANGELOG)
    assert epoch.of([deb(tmp_path / "a.deb", 1700000000)], changelog) == 1795348800
    assert epoch.of([deb(tmp_path / "b.deb", 1800000000)], changelog) == 1800000000


def test_what_is_no_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"<html>not found</html>" + bytes(80))
    with pytest.raises(CorruptArtifact, match=r"a\.deb is no Debian package"):
        epoch.of([tmp_path / "a.deb"])


def test_forms() -> None:
    assert epoch.release_date(1795348800) == "Sun, 22 Nov 2026 12:00:00 +0000"
    assert epoch.day(86400 * 20781 + 5) == 20781
