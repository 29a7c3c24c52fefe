"""The packages, installed on a stock Debian 12 with no network by `apt install ./*.deb`, and purged again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from foundry import run
from foundry.run import Result
from tests.pipeline.harness import gone, inv

VENV = "/usr/lib/patroni-venv"
# The repository of the build and the packages appear below /mnt, for as long as the command runs.
ENTER = """
set -eu
mount --bind "$1" "$3/mnt/archive"
mount --bind "$2" "$3/mnt/debs"
exec chroot "$3" env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -euc "$4"
"""


@dataclass(frozen=True)
class Stock:
    """A Debian 12 whose only source of packages is the repository of the build."""

    root: Path
    archive: Path
    debs: Path

    def sh(self, script: str, *, check: bool = True) -> Result:
        """Run a shell script in it, with neither network nor a process that outlives it."""
        words = ["sh", "-c", ENTER, "sh", str(self.archive), str(self.debs), str(self.root), script]
        return run.run(
            run.contained(words, network=False, proc=self.root / "proc"), on_line=None, check=check, timeout=300
        )

    def has(self, name: str) -> bool:
        path = self.root / name.lstrip("/")
        return path.is_symlink() or path.exists()


@pytest.fixture(scope="module")
def debs(built: Path) -> Path:
    """The folder that `./inv build-deb` fills."""
    inv(built, "build-deb", "--offline").expect(0)
    return built / "deb"


@pytest.fixture(scope="module")
def stock(built: Path, debs: Path, playground: Path) -> Iterator[Stock]:
    archive = max(built.glob("archive/*/stage.json"), key=lambda p: p.stat().st_mtime).parent
    folder = Path(tempfile.mkdtemp(dir=playground, prefix="d"))
    root = folder / "root"
    source = f"deb [signed-by={archive}/key.gpg] copy:{archive} ./"
    command = ["mmdebstrap", "--mode=root", "--variant=required", "--include=apt,systemd-sysv"]
    command += ["--dpkgopt=force-unsafe-io", '--aptopt=APT::Sandbox::User "root"', "bookworm", str(root), source]
    try:
        run.run(run.contained(command), name="mmdebstrap", on_line=None)
        for name in ("archive", "debs"):
            (root / "mnt" / name).mkdir()
        for path in (root / "etc/apt/sources.list.d").iterdir():
            path.unlink()
        line = "deb [signed-by=/mnt/archive/key.gpg] copy:/mnt/archive ./\n"
        (root / "etc/apt/sources.list").write_text(line, encoding="utf-8")
        yield Stock(root, archive, debs)
    finally:
        gone(folder)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def installed(stock: Stock) -> Stock:
    stock.sh("apt-get update && cd /mnt/debs && apt install --yes ./*.deb </dev/null")
    return stock


def test_lintian_has_nothing_to_say(debs: Path) -> None:
    ours = sorted(str(p) for p in debs.glob("patroni-*.deb"))
    assert len(ours) == 2
    words = ["lintian", "-E", "-I", "--pedantic", "--allow-root", "--fail-on=error,warning,info,pedantic,experimental"]
    result = run.run([*words, *ours], on_line=None)
    assert [line for line in result.output.splitlines() if line[:2] in ("E:", "W:", "I:", "P:", "X:")] == []


def test_all_are_installed_and_nothing_is_left_to_do(installed: Stock) -> None:
    listed = installed.sh(
        "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' patroni-node patroni-venv consul"
    ).output
    assert {line.split()[1] for line in listed.splitlines()} == {"installed"}
    assert installed.sh("dpkg --audit; apt-get check -qq").output == ""


def test_no_cluster_exists(installed: Stock) -> None:
    """Trap 15."""
    assert installed.sh("pg_lsclusters -h").output == ""
    assert not installed.has("/var/lib/postgresql/15")
    assert not installed.has("/etc/postgresql/15")


def test_postgresql_service_is_masked_and_ours_are_enabled(installed: Stock) -> None:
    units = installed.sh("systemctl is-enabled postgresql patroni patroni-node consul", check=False).output
    assert units.splitlines() == ["masked", "enabled", "static", "enabled"]


def test_patroni_answers(installed: Stock) -> None:
    assert installed.sh("patroni --version").output == "patroni 4.1.5"
    assert "4.1.5" in installed.sh("patronictl version").output
    assert installed.sh("readlink -f /usr/bin/patroni /usr/bin/patronictl").output.count(VENV) == 2


def test_psycopg_is_linked_to_the_libpq_of_debian(installed: Stock) -> None:
    """Trap 13."""
    module = installed.sh(f"find {VENV} -name '_psycopg*.so'").output
    lines = installed.sh(f"ldd {module}").output.splitlines()
    libpq = next(line.split()[2] for line in lines if "libpq" in line)
    assert installed.sh(f"dpkg -S $(readlink -f {libpq})").output.startswith("libpq5:")


def test_venv_has_neither_pip_nor_tests_and_is_compiled(installed: Stock) -> None:
    folder = installed.root / VENV.lstrip("/")
    names = {p.name for p in folder.rglob("*")}
    assert [name for name in names if name.startswith(("pip", "setuptools", "wheel-"))] == []
    assert not {"tests", "test"} & names
    modules = list(folder.rglob("patroni/*.py"))
    assert modules
    for module in modules:
        assert list(module.parent.glob(f"__pycache__/{module.stem}.*.pyc")), module


def test_nothing_secret_and_no_configuration_came_with_it(installed: Stock) -> None:
    assert list((installed.root / "etc/patroni").iterdir()) == []
    assert list((installed.root / "var/lib/patroni-node").glob("identity*")) == []


def test_purge_leaves_nothing_but_data(installed: Stock) -> None:
    """node.yml is somebody's, the data directory even more; what the program made is not."""
    root = installed.root
    data = ("etc/patroni/node.yml", "var/lib/postgresql/15/main/PG_VERSION")
    for name in (*data, "etc/patroni/patroni.yml", "var/lib/patroni-node/identity.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("made here\n", encoding="utf-8")
    installed.sh("apt-get purge --yes patroni-node patroni-venv </dev/null")
    elsewhere = ("var/log/", "var/cache/apt/", "var/lib/apt/", "var/lib/dpkg/", "mnt/", "usr/share/doc/", "proc/")
    found = [str(p.relative_to(root)) for p in root.rglob("*patroni*")]
    assert [name for name in found if not name.startswith(elsewhere)] == ["etc/patroni"]
    assert [str(p.relative_to(root)) for p in (root / "etc/patroni").iterdir()] == ["etc/patroni/node.yml"]
    assert all((root / name).is_file() for name in data)
    assert not installed.has("/etc/systemd/system/postgresql.service")
    dangling = [
        p for p in (root / "etc/systemd/system").rglob("*") if p.is_symlink() and "patroni" in str(p.readlink())
    ]
    assert dangling == []
    assert "patroni" not in installed.sh("dpkg-query -W -f '${Package}\\n'").output
