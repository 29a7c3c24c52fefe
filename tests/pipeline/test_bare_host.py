"""The README's build on a bare Debian 12, to which the sources came without git."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import run
from tests.pipeline.harness import DOWNLOADS, ROOT, copy, gone
from tests.pipeline.stock import bootstrap, newest_archive

# How this host gets at Debian's archive and at a package index: sources, proxies, authorities. Nothing else of it.
WAYS = (
    "etc/apt",
    "etc/pip.conf",
    "etc/xdg/pip",
    "root/.config/pip",
    "usr/local/share/ca-certificates",
    "etc/resolv.conf",
)
PASSED_ON = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
SOURCES = "/root/foundry"
# The root has to be a mount point: bubblewrap changes into its own from there.
ENTER = """
set -eu
root=$1 script=$2
shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t proc proc "$root/proc"
cd "$root"
exec chroot . env -i "$@" PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 sh -euc "$script"
"""


@pytest.fixture(scope="module")
def bare(built: Path, playground: Path) -> Iterator[Path]:
    """A Debian 12 of its required packages, with the sources in it."""
    folder = Path(tempfile.mkdtemp(dir=playground, prefix="bare"))
    root = folder / "root"
    try:
        bootstrap(newest_archive(built), root, "apt,ca-certificates")
        shutil.rmtree(root / "etc/apt")
        for name in WAYS:
            found = Path("/", name)
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                shutil.copytree(found, target, dirs_exist_ok=True)
            elif found.exists():
                shutil.copyfile(found, target)
        bring_sources(root / SOURCES.lstrip("/"))
        copy(built, root / SOURCES.lstrip("/") / "build", DOWNLOADS)
        yield root
    finally:
        gone(folder)
        shutil.rmtree(folder)


def bring_sources(target: Path) -> None:
    """Copy what git would commit of the sources, and nothing of git."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def test_the_readme_s_build_works_where_nothing_is_installed_and_nothing_has_come_by_git(bare: Path) -> None:
    settings = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(PASSED_ON)]

    def sh(script: str, seconds: float) -> run.Result:
        words = ["sh", "-c", ENTER, "sh", str(bare), script, *settings]
        return run.run(run.contained(words), name="bare", on_line=None, timeout=seconds)

    sh("update-ca-certificates", 60)
    assert sh("for it in git mmdebstrap qemu-img; do command -v $it || true; done", 60).output == ""
    sh(f"cd {SOURCES}; ./inv build-image --no-verify", 1500)
    sh(f"cd {SOURCES}; ./inv doctor", 60)
    assert sh("command -v git || true", 60).output == ""
    found = Path(f"{bare}{SOURCES}/build/images")
    newest = found / json.loads((found / "debian-12.json").read_text(encoding="utf-8"))["folder"]
    manifest = json.loads((newest / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["inputs"]["commit"] is None
    assert next(newest.glob("*.qcow2")).stat().st_size > 100 << 20
