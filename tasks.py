"""The tasks of `./inv`: options to configuration, one call into foundry, one result. Only these files exit."""

from __future__ import annotations

import sys

from invoke.context import Context
from invoke.tasks import task

from task_parts import SET_HELP, WORKSPACE, TakesWords, configuration, given, overrides, session, show
from tasks_cluster import cluster_down, cluster_logs, cluster_psql, cluster_ssh, cluster_status, cluster_up  # noqa: F401
from tasks_publish import diff, promote, publish, releases, renew_store, rollback, verify_release  # noqa: F401


@task(
    iterable=["set"],
    help={
        "image": "its name in foundry.yml (default: the first)",
        "verify": "boot the image and prove it afterwards",
        "offline": "ask no archive: use the newest earlier fetch",
        "from": "the manifest.json of a version: build that one again, from the packages that it records, and compare",
        "set": SET_HELP,
    },
)
def build_image(
    c: Context, image: str = "", verify: bool = True, offline: bool = False, from_: str = "", set: list[str] = []
) -> None:
    """Build a golden image and prove it by booting it."""

    def act() -> list[str]:
        from foundry import build, config, recorded

        if from_:
            found = recorded.load(given(from_), image, overrides(set), WORKSPACE)
            return build.rebuild_image(found, WORKSPACE, verify=verify, offline=offline).summary()
        cfg = configuration(set)
        name = config.pick_image(cfg, image)
        return build.build_image(cfg, WORKSPACE, image=name, verify=verify, offline=offline).summary()

    show(act)


@task(iterable=["set"], help={"offline": "ask no archive: use the newest earlier fetch", "set": SET_HELP})
def build_deb(c: Context, offline: bool = False, set: list[str] = []) -> None:
    """Build the packages patroni-venv and patroni-node in a clean chroot."""

    def act() -> list[str]:
        from foundry import build

        return build.build_deb(configuration(set), WORKSPACE, offline=offline).summary()

    show(act)


@task(iterable=["set"], help={"manifest": "of the image to prove (default: the newest)", "set": SET_HELP})
def verify_image(c: Context, manifest: str = "", set: list[str] = []) -> None:
    """Boot an overlay of an image's very bytes, run tests/image on it, and write the verdict."""

    def act() -> list[str]:
        from foundry import build

        path = given(manifest) if manifest else None
        return build.verify_image(configuration(set), WORKSPACE, manifest=path).summary()

    show(act)


@task(name="config", iterable=["set"], help={"json": "print JSON", "set": SET_HELP})
def show_config(c: Context, json: bool = False, set: list[str] = []) -> None:
    """Print the resolved configuration, and where each value comes from."""

    def act() -> list[str]:
        from foundry import apt, console

        rows = apt.explain(configuration(set))
        return console.json_lines([r._asdict() for r in rows]) if json else console.table(rows)

    show(act)


@task(iterable=["set"], help={"json": "print JSON", "set": SET_HELP})
def doctor(c: Context, json: bool = False, set: list[str] = []) -> None:
    """Say what this host can do, and what to install."""
    from foundry import console
    from foundry import doctor as room

    with session():
        found = room.examine(configuration(set), WORKSPACE)
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

        keys = seeds.read(given(ssh_key), "--ssh-key") if ssh_key else ""
        wanted = seeds.plan(
            cluster, network, list(words.values()), ssh_keys=keys, gateway=gateway, nameservers=nameserver
        )
        secret = seeds.read(given(key), "--key").strip() if key else seeds.fresh_key()
        target = given(output or f"user-data/{cluster}")
        if shared:
            made = seeds.write_shared(wanted, secret, WORKSPACE.templates / "user-data", target)
        else:
            made = seeds.write(wanted, secret, target)
        return [f"wrote {path}" for path in made]

    show(act)


@task(help={"all": "remove the whole build folder: images, verdicts and downloads too"})
def clean(c: Context, all: bool = False) -> None:
    """Remove leftovers and all but the newest results; downloads and images stay."""
    from foundry import clean as room

    show(lambda: room.clean(WORKSPACE, everything=all).summary())


@task
def lint(c: Context) -> None:
    """Run every static check."""
    from foundry import lint as room

    def act() -> list[str]:
        return [f"lint: all {len(room.lint(WORKSPACE))} checks passed"]

    show(act)


@task
def lock(c: Context) -> None:
    """Make requirements/*.txt anew: Patroni as foundry.yml says, all else as new as requirements/*.in allow."""
    from foundry import locks

    def act() -> list[str]:
        changed = locks.lock(configuration([], locked=False), WORKSPACE)
        return [f"changed: {path.relative_to(WORKSPACE.root)}" for path in changed] or ["nothing changed"]

    show(act)


@task(
    iterable=["set", "only"],
    help={
        "fast": "only lint and unit tests: a few minutes",
        "only": "lint, unit, image, cluster or pipeline; several with commas (may be repeated)",
        "keyword": "pytest's expression: only the tests of unit, cluster and pipeline that it fits",
        "last-failed": "only what failed in the results that were kept last",
        "machine": "what test clusters are made of: container, or vm for the tests that need one",
        "mutants": "run no suite: change our code so many times, and see which changes the unit tests notice",
        "seed": "a number for --mutants, which makes it take the same ones again (default: by chance)",
        "set": SET_HELP,
    },
)
def test(
    c: Context,
    fast: bool = False,
    only: list[str] = [],
    keyword: str = "",
    last_failed: bool = False,
    machine: str = "container",
    set: list[str] = [],
    mutants: str = "",
    seed: str = "",
) -> None:
    """Run lint, the unit tests, a whole build with verification, and the tests of clusters and of the pipeline."""
    from foundry import console, mutation, suite

    def act() -> list[str]:
        wish = suite.Wish(fast, tuple(only), keyword, last_failed, machine)
        if mutants or seed:
            return mutation.hunt(WORKSPACE, *mutation.asked(mutants, seed, wish)).summary()
        parts = suite.test(configuration(set), WORKSPACE, wish, show=console.out).parts
        return [f"test: {', '.join(p.name for p in parts)}: all passed" if parts else "test: nothing failed last time"]

    show(act)


@task(
    auto_shortflags=False,
    iterable=["set"],
    help={
        "only": "build, cluster (needs an image), publish (needs a verified one); default: these three; verify, peers",
        "runs": "measure builds so many times, and tell each line's median, least and most",
        "set": SET_HELP,
    },
)
def benchmark(c: Context, only: str = "", runs: int = 1, set: list[str] = []) -> None:
    """Measure each stage of a build beside the plain mmdebstrap way, a cluster's failovers, and publishing.

    `--only verify` measures a verification and both of its boots, `--only peers` what other tools (mkosi, vmdb2,
    diskimage-builder, Packer) take for the same image.
    """

    def act() -> list[str]:
        from foundry import bench

        return bench.benchmark(configuration(set), WORKSPACE, only=only, runs=runs)

    show(act)
