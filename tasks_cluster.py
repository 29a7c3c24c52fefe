"""The tasks of labs: clusters of one image, on this machine."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from task_parts import SET_HELP, WORKSPACE, MayTakeANode, configuration, given, session, show

LAB_HELP = "the lab's name, where there are several (default: lab)"


@task(
    auto_shortflags=False,
    iterable=["set"],
    help={
        "nodes": "how many (default: 3)",
        "machine": "container (seconds), or vm (firmware, boot loader and kernel too; minutes without KVM)",
        "image": "a disk, a manifest, an image of foundry.yml, or a published channel or version (default: the newest)",
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

        wanted = str(given(image)) if "/" in image or given(image).is_file() else image
        made = labs.up(
            configuration(set),
            WORKSPACE,
            name=name,
            nodes=nodes,
            machine=machine,
            dcs=dcs,
            profile=profile,
            wanted=wanted,
        )
        return made.summary()

    show(act)


@task(auto_shortflags=False, help={"name": LAB_HELP, "json": "print JSON"})
def cluster_status(c: Context, name: str = "lab", json: bool = False) -> None:
    """Show a lab's machines, and what Patroni says of its members."""

    def act() -> list[str]:
        from foundry import console
        from foundry.lab import labs

        found = labs.status(labs.find(WORKSPACE, name))
        return console.json_lines(found.as_dict()) if json else found.summary()

    show(act)


@task(
    auto_shortflags=False,
    positional=["node"],
    help={"node": "its name", "command": "run this instead", "name": LAB_HELP},
)
def cluster_ssh(c: Context, node: str, command: str = "", name: str = "lab") -> None:
    """Open a shell on a node of a lab, as the user debian, who may use sudo."""
    from foundry import run
    from foundry.lab import labs

    with session():
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

    with session():
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
    with session():
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

    show(act)
