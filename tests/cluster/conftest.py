"""A cluster of three containers of the newest image, shared by the tests that leave it as they found it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from foundry import config, image, run
from foundry.lab.cluster import Cluster
from foundry.lab.plan import Plan
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, gone, tell_all

HEAL_SECONDS = 120
# What virtual machines are needed for; all else is tried on containers. A run is of one kind, as it was asked for.
VIRTUAL = ["test_vm.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--machine", choices=["container", "vm"], default="container", help="what the nodes of clusters are"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    virtual = collection_path.name in VIRTUAL
    if collection_path.is_dir() or virtual == (config.getoption("--machine") == "vm"):
        return None
    return True


def release() -> image.Release:
    """What `./inv build-image` has built."""
    workspace = Workspace.at(ROOT)
    return image.newest(workspace, config.pick_image(config.load(workspace.config), None))


@pytest.fixture(scope="session")
def disk() -> Path:
    return release().main.resolve()


class Clusters:
    """Makes clusters, and ends them; one that a test left broken is not given to the next test."""

    def __init__(self, folder: Path, disk: Path) -> None:
        self.folder = folder
        self.disk = disk
        self.workspace = Workspace(ROOT, Workspace.at(ROOT).build, folder.name)
        self.made: list[Cluster] = []
        self.shared: Cluster | None = None

    def make(self, kind: type[Cluster] = Cluster, **options: object) -> Cluster:
        """A cluster that has formed. options: of Plan."""
        folder = self.folder / f"c-{secrets.token_hex(3)}"
        run.keep_logs_in(folder / "logs")
        plan = Plan(folder.name, str(self.disk), **{"profile": "fast", **options})  # type: ignore[arg-type]
        cluster = kind(plan, self.workspace, folder)
        self.made.append(cluster)
        cluster.up()
        return cluster

    def close_own(self) -> None:
        """End all that is not shared: each container takes memory, and of the host's inotify instances seven."""
        for cluster in [c for c in self.made if c is not self.shared]:
            cluster.close()
            self.made.remove(cluster)

    def close(self) -> None:
        self.shared = None
        self.close_own()
        gone(self.folder)


@pytest.fixture(scope="session")
def clusters(disk: Path) -> Iterator[Clusters]:
    folder = Workspace.at(ROOT).build / "cluster-tests" / secrets.token_hex(3)
    folder.mkdir(parents=True)
    made = Clusters(folder, disk)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="module", autouse=True)
def own_clusters_end_with_their_module(clusters: Clusters) -> Iterator[None]:
    yield
    clusters.close_own()


@pytest.fixture
def cluster(clusters: Clusters, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three healthy members before the test, and after it, by themselves, again."""
    if clusters.shared is None:
        clusters.shared = clusters.make()
    shared = clusters.shared
    # A test that fails, here or below, takes its cluster with it.
    clusters.shared = None
    shared.wait_formed(3, HEAL_SECONDS)
    yield shared
    shared.network.heal()
    shared.wait_formed(3, HEAL_SECONDS)
    if not getattr(request.node, "failed", False):
        clusters.shared = shared


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    tell_all(report, call.excinfo.value if call.excinfo else None)
    if report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report
