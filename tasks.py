"""The tasks of `./inv`: options to configuration, one call into foundry, one result. Only this file exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from foundry.errors import FoundryError
from foundry.workspace import Workspace
from task_words import MayTakeANode, TakesWords

if TYPE_CHECKING:
    from foundry.config import Config

WORKSPACE = Workspace.at(Path(__file__).parent)
SET_HELP = "KEY=VALUE: override a key of foundry.yml, e.g. --set build.memory_mib=4096 (may be repeated)"


def _configuration(settings: list[str], *, locked: bool = True) -> Config:
    from foundry import config

    overrides = config.settings_of(settings, os.environ.get("FOUNDRY_SET", ""))
    return config.load(WORKSPACE.config, overrides, locked=locked)


@contextmanager
def _session() -> Iterator[None]:
    """Show messages, keep logs, end everything on Ctrl-C, and turn errors into exit codes."""
    from foundry import console, files, run

    code = 0
    try:
        with run.interruptible(), console.messages():
            run.keep_logs_in(WORKSPACE.logs)
            yield
    except FoundryError as error:
        code = console.report(error)
    except Exit:
        raise
    except Exception as error:
        full = files.out_of_space(error, WORKSPACE.build)
        code = console.report(full) if full else console.report_unexpected(error, WORKSPACE.logs)
    if code:
        sys.exit(code)


def _print(act: Callable[[], list[str]]) -> None:
    from foundry import console

    lines: list[str] = []
    with _session():
        lines = act()
    for line in lines:
        console.out(line)


def _given(path: str) -> Path:
    """A path of the command line, as seen from where the user called ./inv."""
    return Path(os.environ.get("FOUNDRY_CALLED_FROM", "."), path).resolve()


@task(
    iterable=["set"],
    help={
        "image": "its name in foundry.yml (default: the first)",
        "verify": "boot the image and prove it afterwards",
        "offline": "ask no archive: use the newest earlier fetch",
        "set": SET_HELP,
    },
)
def build_image(c: Context, image: str = "", verify: bool = True, offline: bool = False, set: list[str] = []) -> None:
    """Build a golden image and prove it by booting it."""

    def act() -> list[str]:
        from foundry import build, config

        cfg = _configuration(set)
        name = config.pick_image(cfg, image)
        return build.build_image(cfg, WORKSPACE, image=name, verify=verify, offline=offline).summary()

    _print(act)


@task(iterable=["set"], help={"offline": "ask no archive: use the newest earlier fetch", "set": SET_HELP})
def build_deb(c: Context, offline: bool = False, set: list[str] = []) -> None:
    """Build the packages patroni-venv and patroni-node in a clean chroot."""

    def act() -> list[str]:
        from foundry import build

        return build.build_deb(_configuration(set), WORKSPACE, offline=offline).summary()

    _print(act)


@task(iterable=["set"], help={"manifest": "of the image to prove (default: the newest)", "set": SET_HELP})
def verify_image(c: Context, manifest: str = "", set: list[str] = []) -> None:
    """Boot an overlay of an image's very bytes, run tests/image on it, and write the verdict."""

    def act() -> list[str]:
        from foundry import build

        path = _given(manifest) if manifest else None
        return build.verify_image(_configuration(set), WORKSPACE, manifest=path).summary()

    _print(act)


@task(name="config", iterable=["set"], help={"json": "print JSON", "set": SET_HELP})
def show_config(c: Context, json: bool = False, set: list[str] = []) -> None:
    """Print the resolved configuration, and where each value comes from."""

    def act() -> list[str]:
        from foundry import apt, console

        rows = apt.explain(_configuration(set))
        return console.json_lines([r._asdict() for r in rows]) if json else console.table(rows)

    _print(act)


@task(iterable=["set"], help={"json": "print JSON", "set": SET_HELP})
def doctor(c: Context, json: bool = False, set: list[str] = []) -> None:
    """Say what this host can do, and what to install."""
    from foundry import console
    from foundry import doctor as room

    with _session():
        found = room.examine(_configuration(set), WORKSPACE)
        for line in console.json_lines(found.rows()) if json else found.summary():
            console.out(line)
        found.insist()


@task(
    help={
        "memory": "such as 4096MiB or 4GB (default: this machine's)",
        "cpus": "default: this machine's",
        "workload": "web, oltp, dw, desktop or mixed",
        "storage": "ssd, hdd or san",
        "connections": "default: PGTune's number for the workload",
        "disk": "of the data disk, which limits max_wal_size",
        "json": "print JSON",
    }
)
def tuning(
    c: Context,
    memory: str = "",
    cpus: str = "",
    workload: str = "mixed",
    storage: str = "ssd",
    connections: str = "",
    disk: str = "",
    json: bool = False,
) -> None:
    """Print the PostgreSQL parameters that a node of a size would get; the same as `patroni-node tuning` on a node."""
    from patroni_node import cli

    given = {"memory": memory, "cpus": cpus, "workload": workload, "storage": storage, "connections": connections}
    options = [f"--{name}={value}" for name, value in {**given, "disk": disk}.items() if value]
    code = cli.main(["tuning", *options, *(["--json"] if json else [])])
    if code:
        sys.exit(code)


@task(
    klass=TakesWords,
    auto_shortflags=False,
    positional=[],
    iterable=["nameserver"],
    help={
        "cluster": "its name, Patroni's scope",
        "network": "the network between the nodes, like 10.129.0.0/24",
        "shared": "one cloud-config for all machines of a group, in place of a seed for each",
        "output": "the folder to make (default: user-data/CLUSTER)",
        "key": "a file with secrets.key, for more nodes of a cluster (default: a new key)",
        "ssh-key": "a file with public keys that may log in as debian",
        "gateway": "the default route's address",
        "nameserver": "a name server's address (may be repeated)",
    },
)
def user_data(
    c: Context,
    cluster: str = "",
    network: str = "",
    shared: bool = False,
    output: str = "",
    key: str = "",
    ssh_key: str = "",
    gateway: str = "",
    nameserver: list[str] = [],
    **words: str,
) -> None:
    """Write what launches a cluster of nodes NAME=ADDRESS[,MAC] …: user-data, network-config, seed ISO, a fresh key."""

    def act() -> list[str]:
        from foundry import user_data as seeds

        keys = seeds.read(_given(ssh_key), "--ssh-key") if ssh_key else ""
        wanted = seeds.plan(
            cluster, network, list(words.values()), ssh_keys=keys, gateway=gateway, nameservers=nameserver
        )
        secret = seeds.read(_given(key), "--key").strip() if key else seeds.fresh_key()
        target = _given(output or f"user-data/{cluster}")
        if shared:
            made = seeds.write_shared(wanted, secret, WORKSPACE.templates / "user-data", target)
        else:
            made = seeds.write(wanted, secret, target)
        return [f"wrote {path}" for path in made]

    _print(act)


LAB_HELP = "the lab's name, where there are several (default: lab)"


@task(
    auto_shortflags=False,
    iterable=["set"],
    help={
        "nodes": "how many (default: 3)",
        "machine": "container (seconds), or vm (firmware, boot loader and kernel too; minutes without KVM)",
        "image": "a disk, a manifest, or an image's name in foundry.yml (default: the newest image)",
        "dcs": "consul (on each node) or etcd3 (one server beside the nodes)",
        "profile": "default, or fast: fails over sooner (docs/cluster.md)",
        "name": LAB_HELP,
        "set": SET_HELP,
    },
)
def cluster_up(
    c: Context,
    nodes: str = "3",
    machine: str = "container",
    image: str = "",
    dcs: str = "consul",
    profile: str = "default",
    name: str = "lab",
    set: list[str] = [],
) -> None:
    """Boot a cluster of nodes from one image on a private network, and wait until it has formed."""

    def act() -> list[str]:
        from foundry.lab import labs

        wanted = str(_given(image)) if "/" in image or _given(image).is_file() else image
        made = labs.up(
            _configuration(set),
            WORKSPACE,
            name=name,
            nodes=nodes,
            machine=machine,
            dcs=dcs,
            profile=profile,
            wanted=wanted,
        )
        return made.summary()

    _print(act)


@task(auto_shortflags=False, help={"name": LAB_HELP, "json": "print JSON"})
def cluster_status(c: Context, name: str = "lab", json: bool = False) -> None:
    """Show a lab's machines, and what Patroni says of its members."""

    def act() -> list[str]:
        from foundry import console
        from foundry.lab import labs

        found = labs.status(labs.find(WORKSPACE, name))
        return console.json_lines(found.as_dict()) if json else found.summary()

    _print(act)


@task(
    auto_shortflags=False,
    positional=["node"],
    help={"node": "its name", "command": "run this instead", "name": LAB_HELP},
)
def cluster_ssh(c: Context, node: str, command: str = "", name: str = "lab") -> None:
    """Open a shell on a node of a lab, as the user debian, who may use sudo."""
    from foundry import run
    from foundry.lab import labs

    with _session():
        words = labs.shell_words(labs.find(WORKSPACE, name), node, command)
    run.become(words)


@task(
    auto_shortflags=False,
    help={"node": "its name (default: the leader)", "command": "an SQL statement", "name": LAB_HELP},
)
def cluster_psql(c: Context, node: str = "", command: str = "", name: str = "lab") -> None:
    """Open psql as the superuser on a lab's leader."""
    from foundry import run
    from foundry.lab import labs

    with _session():
        words = labs.psql_words(labs.find(WORKSPACE, name), node, command)
    run.become(words)


@task(
    klass=MayTakeANode,
    auto_shortflags=False,
    positional=["node"],
    help={"node": "its name (default: all)", "follow": "go on as lines come", "name": LAB_HELP},
)
def cluster_logs(c: Context, node: str = "", follow: bool = False, name: str = "lab") -> None:
    """Print what patroni-node, Consul, Patroni and PostgreSQL have logged on a lab's nodes."""
    from foundry import console, run
    from foundry.lab import labs

    lines: list[str] = []
    words: list[str] = []
    with _session():
        lab = labs.find(WORKSPACE, name)
        if node or follow:
            words = labs.journal_words(lab, node or labs.leader(lab), follow=follow)
        else:
            lines = labs.journals(lab)
    if words:
        run.become(words)
    for line in lines:
        console.out(line)


@task(auto_shortflags=False, help={"name": LAB_HELP, "all": "every lab of this build folder"})
def cluster_down(c: Context, name: str = "lab", all: bool = False) -> None:
    """End a lab: machines, network, data, all of it."""

    def act() -> list[str]:
        from foundry.lab import labs

        names = labs.names(WORKSPACE) if all else [name]
        return [line for each in names for line in labs.down(WORKSPACE, each)] or ["there is no lab"]

    _print(act)


@task(help={"all": "remove the whole build folder: images, verdicts and downloads too"})
def clean(c: Context, all: bool = False) -> None:
    """Remove leftovers and all but the newest results; downloads and images stay."""
    from foundry import clean as room

    _print(lambda: room.clean(WORKSPACE, everything=all).summary())


@task
def lint(c: Context) -> None:
    """Run every static check."""
    from foundry import lint as room

    def act() -> list[str]:
        return [f"lint: all {len(room.lint(WORKSPACE))} checks passed"]

    _print(act)


@task
def lock(c: Context) -> None:
    """Make requirements/*.txt anew: Patroni as foundry.yml says, all else as new as requirements/*.in allow."""
    from foundry import locks

    def act() -> list[str]:
        changed = locks.lock(_configuration([], locked=False), WORKSPACE)
        return [f"changed: {path.relative_to(WORKSPACE.root)}" for path in changed] or ["nothing changed"]

    _print(act)


@task(
    iterable=["set"],
    help={
        "fast": "only lint and unit tests: about a minute",
        "machine": "what test clusters are made of: container, or vm for the tests that need one",
        "set": SET_HELP,
    },
)
def test(c: Context, fast: bool = False, machine: str = "container", set: list[str] = []) -> None:
    """Run lint, the unit tests, a whole build with verification, and the tests of the pipeline."""
    from foundry import console, suite

    def act() -> list[str]:
        parts = suite.test(_configuration(set), WORKSPACE, fast=fast, show=console.out, machine=machine)
        return [f"test: {', '.join(p.name for p in parts)}: all passed"]

    _print(act)


@task(
    auto_shortflags=False,
    iterable=["set"],
    help={"only": "build, or cluster (which needs an image; default: both)", "set": SET_HELP},
)
def benchmark(c: Context, only: str = "", set: list[str] = []) -> None:
    """Measure each stage of a build beside the plain mmdebstrap way, and a cluster's start and failovers."""

    def act() -> list[str]:
        from foundry import bench

        return bench.benchmark(_configuration(set), WORKSPACE, only=only)

    _print(act)
