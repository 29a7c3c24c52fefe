"""What apt reads of a channel, as `./inv verify-release` sees it."""

from __future__ import annotations

import lzma
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foundry import gpg
from foundry.publish import aptrepo
from foundry.publish.ledger import Broken
from tests.unit.publish.conftest import Keys
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents")]

EVIL = b"Package: evil\nVersion: 1\nArchitecture: amd64\nFilename: pool/e.deb\nSize: 1\nSHA256: " + b"0" * 64 + b"\n"
SUITE = f"{NAME}-candidate"


def show(project: Project, index: bytes, key: gpg.Key) -> None:
    """Write what apt reads of the channel, as whoever has this key could."""
    scratch = project.workspace.build
    for path, data in aptrepo.view(index, NAME, "candidate", key, scratch, date=datetime.now(UTC)).items():
        target = project.store / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def test_what_apt_reads_is_looked_at(tmp_path: Path, kept_keys: Keys) -> None:
    project = Project.at(tmp_path)
    project.publish("1")
    whole = f"apt      {SUITE} is signed, and has the packages of this version by name and sha256"
    assert whole in project.check()
    suite = project.store / "apt/dists" / SUITE
    shutil.copytree(suite, tmp_path / "before")

    # Somebody else's key.
    index = (project.store / "images" / NAME / "1/Packages").read_bytes()
    show(project, index, kept_keys["other"])
    with pytest.raises(gpg.BadSignature, match="InRelease"):
        project.check()

    # Other bytes under a name that says otherwise: in each form.
    for data, form in ((EVIL, index), (lzma.compress(EVIL), (suite / aptrepo.INDEXES[1]).read_bytes())):
        shutil.rmtree(suite)
        shutil.copytree(tmp_path / "before", suite)
        named = next(p for p in (suite / aptrepo.BY_HASH).iterdir() if p.read_bytes() == form)
        named.write_bytes(data)
        with pytest.raises(Broken, match=r"what apt reads of candidate does not fit: .* is not in by-hash"):
            project.check()
        named.unlink()
        with pytest.raises(Broken, match="what apt reads of candidate does not fit"):
            project.check()

    # The publisher's own signature under other packages: as after a publisher that was killed, or an old one put back.
    show(project, EVIL, kept_keys["publisher"])
    assert any(
        line.startswith(f"apt      {SUITE} is signed, but has the packages of another") for line in project.check()
    )
    shutil.rmtree(suite)
    assert f"apt      {SUITE}: the store has none" in project.check()
