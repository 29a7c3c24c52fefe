"""Debian's etcd, as the store of a lab that asks for it: one server, beside the nodes and on none of them."""

from __future__ import annotations

from pathlib import Path

from foundry import apt, config, files, lock, run
from foundry.errors import FoundryError
from foundry.lab.plan import NETWORK, STORE
from foundry.machine import wait
from foundry.machine.netns import Network
from foundry.run import Process
from foundry.workspace import Workspace

PORT = 2379
PACKAGE = "etcd-server"
START_SECONDS = 30.0


class Etcd:
    """A server in a network's own namespace, at STORE."""

    def __init__(self, network: Network, workspace: Workspace, folder: Path) -> None:
        self.network = network
        self.workspace = workspace
        self.folder = folder
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, and wait until it listens. Raises GuestError when it does not."""
        url = f"http://{STORE}:{PORT}"
        words = [*self.network.join(f"{STORE}/{NETWORK.prefixlen}"), str(program(self.workspace))]
        words += [f"--data-dir={self.folder}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
        self._process = Process(words, name="etcd")
        self._process.follow()
        wait.until(self._listens, what="etcd", timeout=START_SECONDS, dead=self.dead, interval=0.1)

    def _listens(self) -> tuple[bool, object]:
        words = [*self.network.join(f"{STORE}/{NETWORK.prefixlen}"), "ss", "-Hltn"]
        found = run.capture(words, name="ss")
        return f"{STORE}:{PORT}" in found, found

    def dead(self) -> str | None:
        """Why it cannot answer, or None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        return f"etcd ended with code {self._process.poll()}: {' '.join(self._process.tail)}"

    def stop(self) -> None:
        """End it; its data stays."""
        if self._process:
            self._process.stop()
        self._process = None


def program(workspace: Workspace) -> Path:
    """Debian's etcd, unpacked and not installed, since its package would start it on this host; fetched once.

    Raises FetchError when the archive does not answer.
    """
    known = _known(workspace)
    if known is None:
        with lock.held(workspace, "wait until it has ended: etcd is fetched, once"):
            known = _known(workspace) or _fetch(workspace)
    return known


def _known(workspace: Workspace) -> Path | None:
    # Not what a run that was killed has half made.
    return next(workspace.stage("etcd").glob("[!.]*/usr/bin/etcd"), None)


def _fetch(workspace: Workspace) -> Path:
    cfg = config.load(workspace.config)
    suite = next(iter(cfg.images.values())).suite
    resolver = apt.Resolver(workspace, apt.sources(cfg, suite))
    resolver.update()
    found = [p for p in resolver.resolve([PACKAGE], name="etcd") if p.name == PACKAGE]
    if not found:
        raise FoundryError(f"{suite} has no {PACKAGE}", hint="use `--dcs consul`")
    resolver.fetch(found)
    deb = workspace.pool / found[0].filename
    target = workspace.stage("etcd") / found[0].version.replace(":", "_")
    with files.whole_folder(target) as scratch:
        run.run(["dpkg-deb", "-x", deb, scratch], name="dpkg-deb", what="etcd: dpkg-deb")
    return target / "usr/bin/etcd"
