"""The one date of what a build makes: SOURCE_DATE_EPOCH (reproducible-builds.org), which comes from the packages.

The clock has no say in it, so the same packages give the same bytes at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from debian.changelog import Changelog

from foundry.errors import CorruptArtifact


def of(debs: Iterable[Path], changelog: Path | None = None) -> int:
    """When the newest of some .debs was made, or the newest entry of a changelog if that is later; seconds.

    Raises CorruptArtifact for a file that is no .deb.
    """
    found = [_made(path) for path in debs]
    if changelog:
        date = str(Changelog(changelog.read_text(encoding="utf-8"), max_blocks=1).date)
        found.append(int(datetime.strptime(date, "%a, %d %b %Y %H:%M:%S %z").timestamp()))
    return max(found)


def _made(deb: Path) -> int:
    """The time of a .deb's first member: deb(5), ar(5). dpkg-deb(1) writes its own SOURCE_DATE_EPOCH there."""
    with deb.open("rb") as stream:
        head = stream.read(68)
    if head[:8] != b"!<arch>\n" or not head[24:36].strip().isdigit():
        raise CorruptArtifact(f"{deb} is no Debian package", hint="remove it, and run it again")
    return int(head[24:36])


def release_date(epoch: int) -> str:
    """An epoch as the Date of a Release file: RFC 2822."""
    return format_datetime(datetime.fromtimestamp(epoch, UTC))


def day(epoch: int) -> int:
    """An epoch in days, as shadow(5) counts them."""
    return epoch // 86400
