"""A stock Debian 12 as a folder: made of the build's own repository, with nothing of ours in it, and no network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from foundry import run
from foundry.run import Result
from tests.pipeline.harness import gone

PORT = 8000
WEB = f"http://127.0.0.1:{PORT}"
# Folders of the host appear below /mnt for as long as the command runs, and a web server, on the one address there is.
ENTER = """
set -eu
root=$1 script=$2 web=$3 log=$4
shift 4
while [ $# -gt 0 ]; do
    mkdir -p "$root/mnt/$1"
    mount --bind "$2" "$root/mnt/$1"
    shift 2
done
if [ -n "$web" ]; then
    ip link set lo up
    : > "$log"
    python3 -u -m http.server --bind 127.0.0.1 --directory "$web" PORT >> "$log" 2>&1 &
    until grep -q ^Serving "$log"; do sleep 0.05; done
fi
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive sh -euc "$script"
""".replace("PORT", str(PORT))


@dataclass(frozen=True)
class Stock:
    """A Debian 12. folders: of the host, by the names below /mnt where it sees them."""

    root: Path
    folders: Mapping[str, Path] = field(default_factory=dict)

    def sh(self, script: str, *, check: bool = True, web: Path | None = None) -> Result:
        """Run a shell script in it, with neither network nor a process that outlives it.

        web: a folder that a server has at WEB meanwhile; asked() tells what it was asked for.
        """
        pairs = [word for name, path in self.folders.items() for word in (name, str(path))]
        words = ["sh", "-c", ENTER, "sh", str(self.root), script, str(web or ""), str(self._log), *pairs]
        return run.run(
            run.contained(words, network=False, proc=self.root / "proc"), on_line=None, check=check, timeout=300
        )

    @property
    def _log(self) -> Path:
        return self.root.parent / f"{self.root.name}.web.log"

    def asked(self) -> str:
        """What the web server of the last script was asked for."""
        return self._log.read_text(encoding="utf-8")

    def has(self, name: str) -> bool:
        path = self.root / name.lstrip("/")
        return path.is_symlink() or path.exists()

    def copy(self, name: str, folders: Mapping[str, Path]) -> Stock:
        """Another one, as this one is now, beside it."""
        root = self.root.parent / name
        run.run(["cp", "-a", "--reflink=auto", self.root, root], name="cp", on_line=None)
        return Stock(root, folders)


@contextmanager
def stock_debian(built: Path, playground: Path) -> Iterator[Stock]:
    """A Debian 12 that knows of no source of packages; it is removed, with its copies, when the block ends."""
    archive = newest_archive(built)
    folder = Path(tempfile.mkdtemp(dir=playground, prefix="d"))
    root = folder / "root"
    try:
        bootstrap(archive, root, "apt,systemd-sysv")
        for path in [root / "etc/apt/sources.list", *(root / "etc/apt/sources.list.d").iterdir()]:
            path.unlink(missing_ok=True)
        yield Stock(root)
    finally:
        gone(folder)
        shutil.rmtree(folder)


def bootstrap(archive: Path, root: Path, packages: str) -> None:
    """Make root a Debian 12 of the required packages and these, from a build's own repository."""
    source = f"deb [signed-by={archive}/key.gpg] copy:{archive} ./"
    command = ["mmdebstrap", "--mode=root", "--variant=required", f"--include={packages}"]
    command += ["--dpkgopt=force-unsafe-io", '--aptopt=APT::Sandbox::User "root"', "bookworm", str(root), source]
    run.run(run.contained(command), name="mmdebstrap", on_line=None)


def newest_archive(built: Path) -> Path:
    """The repository of the newest build in a build folder."""
    return max(built.glob("archive/*/stage.json"), key=lambda p: p.stat().st_mtime).parent


def is_a_node(stock: Stock) -> None:
    """Everything is installed and configured, nothing runs, and no cluster was made."""
    listed = stock.sh("dpkg-query -W -f '${Package} ${db:Status-Status}\\n' patroni-node patroni-venv consul").output
    assert {line.split()[1] for line in listed.splitlines()} == {"installed"}
    assert stock.sh("dpkg --audit; apt-get check -qq").output == ""
    units = stock.sh("systemctl is-enabled postgresql patroni patroni-node consul", check=False).output
    assert units.splitlines() == ["masked", "enabled", "static", "enabled"]
    assert stock.sh("pg_lsclusters -h").output == ""
    assert stock.sh("patroni --version").output.startswith("patroni 4.")
