"""A bare Debian 12 on which a user builds: nothing is installed, and the sources have come without git."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class BareHost:
    """A Debian 12 of its required packages. root: its files, as this host sees them."""

    root: Path

    @property
    def build(self) -> Path:
        """Its build folder."""
        return self.root / SOURCES.lstrip("/") / "build"

    def sh(self, script: str, seconds: float) -> run.Result:
        """Run a shell script in it as root, with this host's ways to archives and indexes."""
        settings = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(PASSED_ON)]
        words = ["sh", "-c", ENTER, "sh", str(self.root), script, *settings]
        return run.run(run.contained(words), name="bare", on_line=None, timeout=seconds)


@contextmanager
def bare_host(built: Path, playground: Path) -> Iterator[BareHost]:
    """A bare host with the sources and what was downloaded for them in it; it is removed when the block ends."""
    folder = Path(tempfile.mkdtemp(dir=playground, prefix="bare"))
    found = BareHost(folder / "root")
    try:
        bootstrap(newest_archive(built), found.root, "apt,ca-certificates")
        shutil.rmtree(found.root / "etc/apt")
        for name in WAYS:
            source, target = Path("/", name), found.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.exists():
                shutil.copyfile(source, target)
        bring_sources(found.build.parent)
        copy(built, found.build, DOWNLOADS)
        found.sh("update-ca-certificates", 60)
        yield found
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
