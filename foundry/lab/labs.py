"""Labs as the tasks see them: one folder each, and a keeper that lives while the lab does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry import files, log, run
from foundry.config import Config
from foundry.errors import Cancelled, CommandFailed, ConfigError, FoundryError, GuestError, ToolMissing
from foundry.lab import disks, keeper
from foundry.lab.claim import claimed, empty, refuse_running, remove
from foundry.lab.cluster import LIST, Member, parse_members
from foundry.lab.plan import Plan, check, check_name, load
from foundry.machine import MAKERS, netns, owner, ssh
from foundry.workspace import Workspace

STOP_SECONDS = 60.0
UNITS = ("patroni-node", "consul", "patroni")


@dataclass(frozen=True)
class Lab:
    """A lab that runs. machines: name to the ssh_config(5) in which the host "node" is that machine.

    pid, since: its keeper's, as owner.started() tells it.
    """

    plan: Plan
    folder: Path
    pid: int
    since: str
    space: Path
    machines: dict[str, Path]


@dataclass(frozen=True)
class Formed:
    """What cluster-up ends with."""

    lab: Lab
    seconds: float
    table: str

    def summary(self) -> list[str]:
        """Lines for a person: Patroni's own table, and what to do next."""
        plan = self.lab.plan
        named = "" if plan.name == "lab" else f" --name {plan.name}"
        return [
            self.table,
            f"lab      {plan.name}, {plan.nodes} × {plan.machine}, {self.seconds:.1f} s of {Path(plan.image).stem}",
            f"use      ./inv cluster-psql{named}   ./inv cluster-ssh pg-srv1{named}   ./inv cluster-status{named}",
            f"end      ./inv cluster-down{named}",
        ]


@dataclass(frozen=True)
class Status:
    """A lab's machines ("on", or why not) and members, the latter as the first node that answers sees them."""

    lab: Lab
    machines: dict[str, str]
    members: list[Member]
    table: str

    def summary(self) -> list[str]:
        """Lines for a person."""
        rows = [f"{name}: {state}" for name, state in self.machines.items() if state != "on"]
        return [
            self.table or "no node answers patronictl",
            *rows,
            f"lab      {self.lab.plan.name}, in {self.lab.folder}",
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "lab": self.lab.plan.name,
            "machine": self.lab.plan.machine,
            "image": self.lab.plan.image,
            "machines": self.machines,
            "members": [vars(m) for m in self.members],
        }


def up(
    cfg: Config,
    workspace: Workspace,
    *,
    name: str,
    nodes: str,
    machine: str,
    dcs: str,
    profile: str,
    wanted: str,
    memory_mib: int = 1024,
) -> Formed:
    """Make a lab and wait until its cluster has formed.

    wanted: a path of a disk or of a manifest, the name of an image in foundry.yml, or "" for the first of these.
    Raises FoundryError; nothing of the lab runs then.
    """
    check(name, nodes, machine, dcs, profile, list(MAKERS))
    if os.geteuid() != 0:
        raise ToolMissing("a lab needs root: namespaces, mounts and network cards", hint="sudo ./inv …")
    folder = workspace.labs / name
    if running(folder):
        refuse_running(name)
    disk, kind = disks.find(cfg, workspace, wanted)
    with claimed(folder) as claim:
        try:
            netns.sweep()
            empty(folder)
            plan = Plan(
                name,
                str(disk),
                int(nodes),
                machine,
                dcs="etcd3" if dcs == "etcd3" else "consul",
                profile="fast" if profile == "fast" else "default",
                format=kind,
                memory_mib=memory_mib,
                accelerator=disks.accelerator(cfg, disk, kind, workspace) if machine == "vm" else "tcg",
            )
            plan.save(folder / keeper.PLAN)
            return _start(plan, folder, workspace, claim)
        except BaseException as error:
            _clear_up(folder, workspace, error)
            raise


def _start(plan: Plan, folder: Path, workspace: Workspace, claim: int) -> Formed:
    words = [sys.executable, "-m", "foundry.lab.keeper", str(folder), str(workspace.root), str(workspace.build)]
    with (
        log.stage("lab", f"{plan.nodes} × {plan.machine} of {Path(plan.image).name}"),
        run.Attached(words, name="keeper", cwd=workspace.root, keeps=[claim]) as process,
    ):
        formed = _follow(process)
        return Formed(_kept(process, folder), formed["formed"], formed["table"])


def _kept(process: run.Attached, folder: Path) -> Lab:
    """Let a keeper go on by itself. Raises GuestError where it has ended."""
    with suppress(BrokenPipeError):
        process.let_go("keep")
        # A pipe takes a word for a moment after its reader has ended.
        lab = running(folder)
        if lab:
            return lab
    raise GuestError("the lab's keeper ended as soon as its cluster had formed", log=process.log)


def _clear_up(folder: Path, workspace: Workspace, error: BaseException) -> None:
    """Leave nothing of a lab that was not made, but what tells why."""
    lab = running(folder)
    if lab is not None:
        _end(lab)
    netns.sweep()
    if isinstance(error, FoundryError) and not isinstance(error, Cancelled) and (folder / "logs").is_dir():
        target = keep_failed(folder, workspace)
        if error.log is None:
            error.log = target
        elif error.log.is_relative_to(folder):
            error.log = target / error.log.relative_to(folder)
    with suppress(FoundryError):
        remove(folder)


def _follow(process: run.Attached) -> dict[str, Any]:
    """Show what a keeper says until its cluster has formed. Raises what it has failed with."""
    other: list[str] = []
    for line in process.heard():
        said = _message(line)
        if said is None:
            other.append(line)
        elif "info" in said:
            log.info(said["info"])
        elif "activity" in said:
            log.activity(said["activity"])
        elif "error" in said:
            brief, details, written, hint = said["error"]
            error = GuestError(brief, details=details, log=Path(written) if written else None, hint=hint)
            error.code = said["code"]
            raise error
        elif "formed" in said:
            return said
    if run.cancelled():
        raise Cancelled("interrupted")
    raise GuestError("the lab's keeper ended without a word", details="\n".join(other[-4:]) or None, log=process.log)


def _message(line: str) -> dict[str, Any] | None:
    """What a keeper says in a line; None where the line is another one, such as Python's own."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def keep_failed(folder: Path, workspace: Workspace) -> Path:
    """Copy the logs of a lab that did not form to build/failed/, in place of an earlier one's; returns where to.

    Keys and plans are not among them.
    """
    target = workspace.failed / f"lab-{folder.name}"
    shutil.rmtree(target, ignore_errors=True)
    if (folder / keeper.FAILED).is_dir():
        shutil.copytree(folder / keeper.FAILED, target)
    shutil.copytree(folder / "logs", target / "logs", dirs_exist_ok=True)
    for console in folder.glob("machines/*/console.log"):
        kept = target / console.relative_to(folder)
        kept.parent.mkdir(parents=True)
        shutil.copyfile(console, kept)
    return target


def running(folder: Path) -> Lab | None:
    """The lab in a folder; None where none runs there."""
    state = files.read_json(folder / keeper.STATE)
    try:
        if owner.started(state["pid"]) != state["since"]:
            return None
        machines = {name: Path(path) for name, path in state["machines"].items()}
        return Lab(load(folder / keeper.PLAN), folder, state["pid"], state["since"], Path(state["space"]), machines)
    except (TypeError, KeyError, AttributeError):
        return None


def names(workspace: Workspace) -> list[str]:
    """The names of all labs in this build folder, whatever state they are in."""
    return sorted(p.name for p in workspace.labs.iterdir()) if workspace.labs.is_dir() else []


def find(workspace: Workspace, name: str) -> Lab:
    """The lab of a name. Raises ConfigError, naming those that run."""
    check_name(name)
    folder = workspace.labs / name
    lab = running(folder)
    if lab is not None:
        return lab
    if (folder / keeper.STATE).exists():
        raise ConfigError(
            f"no lab {name} runs any more: its keeper was killed, or this host booted anew",
            hint=f"`./inv cluster-down --name {name}` removes what is left of it, `./inv cluster-up` makes it anew",
        )
    if folder.exists():
        raise ConfigError(
            f"no lab {name} runs: its cluster has not formed",
            hint=f"wait for its cluster-up; if none runs: `./inv cluster-down --name {name}`",
        )
    others = ", ".join(n for n in names(workspace) if running(workspace.labs / n))
    hint = f"running: {others} (--name)" if others else "`./inv cluster-up` makes one"
    raise ConfigError(f"no lab {name} runs", hint=hint)


def ask(lab: Lab, wish: str, seconds: float) -> dict[str, Any]:
    """Send a keeper a wish ("status", "stop") and return its answer. Raises FoundryError when none comes."""
    try:
        with socket.socket(socket.AF_UNIX) as client, keeper.short_path(lab.folder) as near:
            client.settimeout(seconds)
            client.connect(f"{near}/{keeper.SOCKET}")
            with client.makefile("rw", encoding="utf-8") as stream:
                stream.write(f"{wish}\n")
                stream.flush()
                answer: dict[str, Any] = json.loads(stream.readline())
                return answer
    except (OSError, ValueError) as error:
        raise FoundryError(
            f"lab {lab.plan.name}: its keeper (process {lab.pid}) does not answer: {error}",
            log=lab.folder / keeper.LOG,
            hint=f"`./inv cluster-down --name {lab.plan.name}` ends it",
        ) from error


def on_node(lab: Lab, name: str, command: str, *, seconds: float = 30) -> run.Result:
    """Run a command on a node, whatever its exit code."""
    words = ["ssh", "-F", str(lab.machines[name]), "-T", ssh.HOST, command]
    return run.run(words, name=f"ssh-{name}", check=False, timeout=seconds, on_line=None)


def status(lab: Lab) -> Status:
    """What a lab's machines and members are. Raises FoundryError when the keeper does not answer."""
    machines: dict[str, str] = ask(lab, "status", 10)["machines"]
    members: list[Member] = []
    for node in lab.plan.members:
        if machines[node.name] != "on":
            continue
        # A node that does not answer in time is no reason not to ask the next one.
        with suppress(CommandFailed):
            said = on_node(lab, node.name, lab.plan.ask(node, "/cluster"))
            members = members or parse_members(said.output)
            table = on_node(lab, node.name, LIST)
            if table.returncode == 0:
                return Status(lab, machines, members, table.output)
    return Status(lab, machines, members, "")


def leader(lab: Lab) -> str:
    """The name of the member that leads. Raises FoundryError when there is none."""
    found = status(lab)
    for member in found.members:
        if member.role == "leader":
            return member.name
    raise FoundryError(f"lab {lab.plan.name} has no leader", details="\n".join(found.summary()))


def node(lab: Lab, name: str) -> str:
    """name, if it is a node of the lab. Raises ConfigError."""
    if name not in lab.machines:
        raise ConfigError(f"lab {lab.plan.name} has no node {name!r}", hint=f"its nodes: {', '.join(lab.machines)}")
    return name


def shell_words(lab: Lab, name: str, command: str = "") -> list[str]:
    """The command that opens a shell on a node, or runs a command there. Raises ConfigError where there is no node."""
    terminal = ["-t"] if sys.stdin.isatty() else ["-T"]
    return ["ssh", "-F", str(lab.machines[node(lab, name)]), *terminal, ssh.HOST, *([command] if command else [])]


def psql_words(lab: Lab, name: str, statement: str) -> list[str]:
    """The command that opens psql as the superuser on a node ("" for the leader), or runs a statement there."""
    words = ["sudo", "-u", "postgres", "psql", *(["-c", statement] if statement else [])]
    # The superuser may not look into debian's home, where ssh begins.
    return shell_words(lab, name or leader(lab), f"cd / && {shlex.join(words)}")


def journal_words(lab: Lab, name: str, *, follow: bool) -> list[str]:
    """The command that prints the journal of a node's own units since it booted."""
    units = " ".join(f"-u {unit}" for unit in UNITS)
    return shell_words(lab, name, f"sudo journalctl -b --no-pager {units}{' -f' if follow else ''}")


def journals(lab: Lab) -> list[str]:
    """The journals of all nodes, each under its name."""
    lines = []
    for name in lab.machines:
        words: list[str | Path] = [*journal_words(lab, name, follow=False)]
        lines += [f"== {name}", *run.capture(words, name=f"journal-{name}", check=False).splitlines()]
    return lines


def down(workspace: Workspace, name: str) -> list[str]:
    """End a lab and remove all of it, whatever state it is in; returns what was done, for a person."""
    check_name(name)
    folder = workspace.labs / name
    lab = running(folder)
    if lab is None and not folder.exists():
        find(workspace, name)
    if lab is not None:
        _end(lab)
    with claimed(folder):
        netns.sweep()
        remove(folder)
    return [f"lab {name} is gone"]


def _end(lab: Lab) -> None:
    """End a lab's keeper, and with it the machines; kill it where it does not obey."""
    try:
        ask(lab, "stop", STOP_SECONDS)
    except FoundryError:
        # Its machines end with it (setpriv --pdeathsig), and sweep() removes its namespaces.
        _kill(lab)
    deadline = time.monotonic() + STOP_SECONDS
    while owner.started(lab.pid) == lab.since:
        if time.monotonic() > deadline:
            _kill(lab)
            deadline += STOP_SECONDS
        time.sleep(0.05)


def _kill(lab: Lab) -> None:
    if owner.started(lab.pid) == lab.since:
        with suppress(ProcessLookupError):
            os.kill(lab.pid, signal.SIGKILL)
