"""The packages, installed on a stock Debian 12 with no network by `apt install ./*.deb`, and purged again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import run
from tests.pipeline.harness import inv
from tests.pipeline.stock import Stock, is_a_node, newest_archive, stock_debian

VENV = "/usr/lib/patroni-venv"


@pytest.fixture(scope="module")
def debs(built: Path) -> Path:
    """The folder that `./inv build-deb` fills."""
    inv(built, "build-deb", "--offline").expect(0)
    return built / "deb"


@pytest.fixture(scope="module")
def stock(built: Path, debs: Path, playground: Path) -> Iterator[Stock]:
    """A Debian 12 whose only source of packages is the repository of the build."""
    with stock_debian(built, playground) as found:
        line = "deb [signed-by=/mnt/archive/key.gpg] copy:/mnt/archive ./\n"
        (found.root / "etc/apt/sources.list").write_text(line, encoding="utf-8")
        yield Stock(found.root, {"archive": newest_archive(built), "debs": debs})


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


def test_all_are_installed_and_no_cluster_exists(installed: Stock) -> None:
    """Trap 15."""
    is_a_node(installed)
    assert not installed.has("/var/lib/postgresql/15")
    assert not installed.has("/etc/postgresql/15")


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
