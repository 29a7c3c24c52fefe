"""Build folders to play with: filled with links to what build/ holds, so that only the stage under test is built."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from foundry.publish.stores import Options
from foundry.workspace import Workspace
from tests import profiles
from tests.pipeline import store_servers
from tests.pipeline.harness import DOWNLOADS, ROOT, STAGES, Ended, copy, gone, inv, tell_all
from tests.pipeline.lab import Lab
from tests.pipeline.store_places import ENVIRONMENT, PART, Place
from tests.pipeline.store_servers import BUCKET, Programs, Server, Sshd

profiles.load()

Scratch = Callable[..., Path]

# Minutes each. Begun last, one of them would run by itself while the other process has nothing left to do.
LONGEST = (
    "test_publishing.py",
    "test_rebuild.py",
    "test_interrupts.py",
    "test_archive.py",
    "test_node.py",
    "test_supply.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def playground() -> Iterator[Path]:
    """A folder on the file system of build/, since links do not lead to another one."""
    build = Workspace.at(ROOT).build
    (build / "pipeline").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=build / "pipeline", prefix="p"))
    yield folder
    gone(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def first(playground: Path) -> tuple[Path, Ended]:
    """A build folder with a whole build of the sources as they are now, and how that build ended.

    After `./inv build-image` all of it is there already; else this takes some minutes.
    """
    build = copy(Workspace.at(ROOT).build, playground / "first", (*DOWNLOADS, *STAGES))
    return build, inv(build, "build-image", "--no-verify", seconds=900).expect(0)


@pytest.fixture(scope="session")
def built(first: tuple[Path, Ended]) -> Path:
    """The build folder of a whole build: to read, and to copy from."""
    return first[0]


@pytest.fixture
def scratch(playground: Path, request: pytest.FixtureRequest) -> Iterator[Scratch]:
    """Makes a build folder with the named folders of a whole build; it is removed after the test."""
    made: list[Path] = []

    def make(*names: str) -> Path:
        target = Path(tempfile.mkdtemp(dir=playground, prefix="s"))
        made.append(target)
        return copy(request.getfixturevalue("built"), target, names) if names else target

    yield make
    for folder in made:
        gone(folder)
        shutil.rmtree(folder)


@pytest.fixture
def lab(built: Path, playground: Path) -> Iterator[Lab]:
    """Machines of the built image on a network of their own, all of them gone after the test."""
    with Lab(built, playground / f"lab-{secrets.token_hex(3)}") as found:
        yield found


@pytest.fixture(scope="session")
def servers() -> Programs:
    """The programs of the servers that stores are tried with."""
    return store_servers.programs()


@pytest.fixture(scope="session")
def sshd(servers: Programs, playground: Path) -> Iterator[Sshd]:
    with store_servers.sshd(servers, playground / "ssh") as found:
        yield found


@pytest.fixture(scope="session")
def seaweed(servers: Programs, playground: Path) -> Iterator[tuple[Server, str]]:
    with store_servers.seaweed(servers, playground / "seaweed") as found:
        yield found


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the S3 servers, and none of the user's own."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["local", "sftp", "s3"])
def place(request: pytest.FixtureRequest, playground: Path) -> Iterator[Place]:
    """An empty store of each kind."""
    name = secrets.token_hex(4)
    folder = playground / name
    folder.mkdir()
    if request.param == "local":
        found = Place("local", str(folder / "a store"), Options(), folder, 200 << 20, folder / "a store")
    elif request.param == "sftp":
        server: Sshd = request.getfixturevalue("sshd")
        root = server.jail / "store" / f"{name} [x]"
        root.mkdir()
        os.chown(root, 65532, 65532)
        url = f"sftp://publisher@127.0.0.1:{server.port}/store/{name}%20[x]"
        options = Options(timeout=20, ssh_config=server.config, scratch=folder)
        found = Place("sftp", url, options, folder, 120 << 20, root, server.server)
    else:
        weed, endpoint = request.getfixturevalue("seaweed")
        options = Options(endpoint=endpoint, region="us-east-1", timeout=20, part_size=PART)
        found = Place("s3", f"s3://{BUCKET}/{name}", options, folder, 60 << 20, server=weed)
    yield found
    for store in found.opened:
        store.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    tell_all(report, call.excinfo.value if call.excinfo else None)
    return report
