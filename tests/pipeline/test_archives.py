"""Archives that do not answer, lie, or changed on the way: one clear error, and nothing of it is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from foundry import apt
from foundry.errors import FetchError
from foundry.workspace import Workspace
from tests.pipeline import mirrors
from tests.pipeline.conftest import Scratch
from tests.pipeline.harness import DOWNLOADS, Ended, Inv, half_made, inv, log_says, results

NOWHERE = "http://127.0.0.1:9/debian"


def mirror(address: str) -> list[str]:
    return [f"--set=archive.mirror={address}", f"--set=archive.security_mirror={address}"]


def nothing_made(build: Path, ended: Ended) -> None:
    assert results(build) == set()
    assert half_made(build) == []
    assert ended.out == ""


def test_offline_with_nothing_fetched(scratch: Scratch) -> None:
    build = scratch()
    ended = inv(build, "build-image", "--offline")
    ended.refused(4, "archive: --offline, but nothing was fetched before", "hint: run it once without --offline")
    nothing_made(build, ended)


def test_mirror_that_is_not_there(scratch: Scratch) -> None:
    build = scratch()
    setting = {"FOUNDRY_SET": f"archive.mirror={NOWHERE} archive.security_mirror={NOWHERE}"}
    ended = inv(build, "build-image", env=setting)
    ended.refused(4, "archive: ", "127.0.0.1", "log:", "hint: check the network, a proxy, and the mirror")
    nothing_made(build, ended)


def test_mirror_signed_by_somebody_else(scratch: Scratch, tmp_path: Path) -> None:
    build = scratch()
    with mirrors.serving(mirrors.signed_by_somebody_else(tmp_path)) as address:
        ended = inv(build, "build-image", *mirror(address))
    ended.refused(4, "archive: ", "is not signed", "log:", "hint:")
    nothing_made(build, ended)


def test_mirror_that_never_answers(tmp_path: Path) -> None:
    """With another number for how long apt waits: what bounds a run is three times half a minute for each index."""
    workspace = Workspace(tmp_path, tmp_path / "build", "run")
    with mirrors.silent() as address:
        sources = [apt.Source(address, "bookworm", ("main",), apt.DEBIAN_KEYRING)]
        resolver = apt.Resolver(workspace, sources)
        options = resolver.root / "apt.conf"
        text = options.read_text(encoding="utf-8")
        assert 'Acquire::http::Timeout "20"' in text
        options.write_text(text.replace('http::Timeout "20"', 'http::Timeout "1"'), encoding="utf-8")
        with pytest.raises(FetchError) as caught:
            resolver.update()
    assert "Failed to fetch" in (caught.value.details or "")


def test_package_that_changed_in_the_pool(scratch: Scratch) -> None:
    """As long as before, so that only its digest tells; the next run fetches it anew."""
    build = scratch(*DOWNLOADS, "chroot", "patroni-venv", "patroni-node")
    victim = next((build / "pool").glob("netbase_*.deb"))
    good = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(good[:-8] + b"tampered")
    ended = inv(build, "build-deb")
    ended.refused(6, "archive: ", victim.name, "hint: run it again")
    assert not victim.exists()
    assert not list(build.glob("archive/*"))

    ended = inv(build, "build-deb").expect(0)
    assert victim.read_bytes() == good
    assert ended.stage("chroot") == "reused: no input changed", ended.err


def test_package_that_changed_in_the_repository(scratch: Scratch) -> None:
    """The archive stage looks at sizes only, so who installs from it must notice, and the next run must mend it."""
    build = scratch(*DOWNLOADS, "archive")
    newest = max(build.glob("archive/*/stage.json"), key=lambda p: p.stat().st_mtime).parent
    pooled, victim = next((build / "pool").glob("netbase_*.deb")), next(newest.glob("pool/netbase_*.deb"))
    good = pooled.read_bytes()
    victim.unlink()
    victim.write_bytes(good[:-8] + b"tampered")
    pooled.unlink()
    pooled.hardlink_to(victim)
    inv(build, "build-deb").refused(6, "archive: ", victim.name, "hint: run it again")
    assert not list(build.glob("chroot/*"))

    with Inv(build, "build-deb") as run:
        run.reaches(log_says(build, "chroot-mmdebstrap.log", "I: running"), "a new chroot", 60)
    assert pooled.read_bytes() == victim.read_bytes() == good


def test_consul_that_is_not_the_pinned_one(scratch: Scratch) -> None:
    build = scratch(*DOWNLOADS)
    pinned = next((build / "pool").glob("consul_*.deb"))
    good = pinned.read_bytes()
    ended = inv(build, "build-deb", f"--set=consul.sha256={'f' * 64}")
    ended.refused(4, pinned.name, "is not what foundry.yml pins", "log:")
    nothing_made(build, ended)
    assert pinned.read_bytes() == good


def test_python_index_that_is_not_there(scratch: Scratch) -> None:
    build = scratch(*DOWNLOADS, "archive", "chroot")
    shutil.rmtree(build / "wheels")
    before = results(build)
    ended = inv(build, "build-deb", "--offline", env={"PIP_INDEX_URL": "http://127.0.0.1:9/simple"})
    ended.refused(4, "wheels: the Python package index did not give", "127.0.0.1", "hint: check the network")
    assert results(build) == before
    assert half_made(build) == []
