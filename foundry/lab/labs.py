"""Labs as the tasks see them: one folder each, and a keeper that lives while the lab does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry import config, files, image, log, run, tree
from foundry.config import Config
from foundry.errors import Cancelled, ConfigError, FoundryError, GuestError, ToolMissing
from foundry.lab import keeper
from foundry.lab.claim import CLAIM, claimed, refuse_running
from foundry.lab.cluster import LIST, Member, parse_members
from foundry.lab.plan import Plan, check, check_name, load
from foundry.machine import MAKERS, Accelerator, kvm, netns, owner, ssh
from foundry.workspace import Workspace

STOP_SECONDS = 60.0
UNITS = ("patroni-node", "consul", "patroni")


@dataclass(frozen=True)
class Lab:
    """A lab that runs. machines: name to the ssh_config(5) in which the host "node" is that machine."""

    plan: Plan
    folder: Path
    pid: int
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
    nodes: int,
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
    disk, kind = _disk(cfg, workspace, wanted)
    with claimed(folder) as claim:
        netns.sweep()
        _empty(folder)
        plan = Plan(
            name,
            str(disk),
            nodes,
            machine,
            dcs="etcd3" if dcs == "etcd3" else "consul",
            profile="fast" if profile == "fast" else "default",
            format=kind,
            memory_mib=memory_mib,
            accelerator=accelerator(cfg, disk, kind, workspace) if machine == "vm" else "tcg",
        )
        plan.save(folder / keeper.PLAN)
        return _start(plan, folder, workspace, claim)


def _empty(folder: Path) -> None:
    """Remove what an earlier lab has left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != CLAIM:
            path.unlink(missing_ok=True)


def _disk(cfg: Config, workspace: Workspace, wanted: str) -> tuple[Path, str]:
    """The disk to boot, and its format."""
    path = Path(wanted)
    if wanted and (path.is_file() or "/" in wanted):
        if not path.is_file():
            raise ConfigError(f"--image: there is no file {path}")
        if path.suffix == ".json":
            release = image.load(path.parent)
            return release.main.resolve(), release.main.suffix.lstrip(".")
        return path.resolve(), "qcow2" if path.suffix == ".qcow2" else "raw"
    release = image.newest(workspace, config.pick_image(cfg, wanted or None))
    return release.main.resolve(), release.main.suffix.lstrip(".")


def accelerator(cfg: Config, disk: Path, kind: str, workspace: Workspace) -> Accelerator:
    """How virtual machines of a disk run here, by trying its own kernel. Raises FoundryError."""
    with tempfile.TemporaryDirectory() as scratch:
        kernel, initrd = tree.boot_files(tree.raw(disk, kind, Path(scratch) / "disk.raw"), Path(scratch) / "boot")
        return kvm.accelerator(cfg.build.accelerator, kernel, initrd, workspace)


def _start(plan: Plan, folder: Path, workspace: Workspace, claim: int) -> Formed:
    words = [sys.executable, "-m", "foundry.lab.keeper", str(folder), str(workspace.root), str(workspace.build)]
    with log.stage("lab", f"{plan.nodes} × {plan.machine} of {Path(plan.image).name}"):
        try:
            with run.Attached(words, name="keeper", cwd=workspace.root, keeps=[claim]) as process:
                formed = _follow(process, folder)
                lab = _kept(process, folder)
        except BaseException:
            keep_failed(folder, workspace)
            netns.sweep()
            raise
    return Formed(lab, formed["formed"], formed["table"])


def _kept(process: run.Attached, folder: Path) -> Lab:
    """Let a keeper go on by itself. Raises GuestError where it has ended."""
    with suppress(BrokenPipeError):
        process.let_go("keep")
        # A pipe takes a word for a moment after its reader has ended.
        lab = running(folder)
        if lab:
            return lab
    raise GuestError("the lab's keeper ended as soon as its cluster had formed", log=folder / "logs")


def _follow(process: run.Attached, folder: Path) -> dict[str, Any]:
    """Show what a keeper says until its cluster has formed. Raises what it has failed with."""
    for line in process.heard():
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if "info" in said:
            log.info(said["info"])
        elif "activity" in said:
            log.activity(said["activity"])
        elif "error" in said:
            brief, details, written, hint = said["error"]
            raise GuestError(brief, details=details, log=Path(written) if written else folder / "logs", hint=hint)
        elif "formed" in said:
            return said
    if run.cancelled():
        raise Cancelled("interrupted")
    raise GuestError("the lab's keeper ended without a word", log=folder / "logs")


def keep_failed(folder: Path, workspace: Workspace) -> None:
    """Move what a lab that did not form has left to build/failed/, in place of an earlier one's; keys go."""
    target = workspace.failed / f"lab-{folder.name}"
    shutil.rmtree(target, ignore_errors=True)
    if not (folder / "logs").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return
    (target / "logs").parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "logs", target / "logs")
    for console in folder.glob("machines/*/console.log"):
        shutil.copyfile(console, target / f"{console.parent.name}-console.log")
    shutil.rmtree(folder, ignore_errors=True)


def running(folder: Path) -> Lab | None:
    """The lab in a folder; None where none runs there."""
    state = files.read_json(folder / keeper.STATE)
    try:
        if owner.started(state["pid"]) != state["since"]:
            return None
        machines = {name: Path(path) for name, path in state["machines"].items()}
        return Lab(load(folder / keeper.PLAN), folder, state["pid"], Path(state["space"]), machines)
    except (TypeError, KeyError):
        return None


def names(workspace: Workspace) -> list[str]:
    """The names of all labs in this build folder, whatever state they are in."""
    return sorted(p.name for p in workspace.labs.iterdir()) if workspace.labs.is_dir() else []


def find(workspace: Workspace, name: str) -> Lab:
    """The lab of a name. Raises ConfigError, naming those that run."""
    check_name(name)
    lab = running(workspace.labs / name)
    if lab is None:
        others = ", ".join(n for n in names(workspace) if running(workspace.labs / n))
        hint = f"running: {others} (--name)" if others else "`./inv cluster-up` makes one"
        raise ConfigError(f"no lab {name} runs", hint=hint)
    return lab


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
    table = ""
    for name in (n for n, state in machines.items() if state == "on"):
        address = next(m.address for m in lab.plan.members if m.name == name)
        members = members or parse_members(on_node(lab, name, f"curl -sS -m 3 http://{address}:8008/cluster").output)
        answer = on_node(lab, name, LIST)
        if answer.returncode == 0:
            table = answer.output
            break
    return Status(lab, machines, members, table)


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
        shutil.rmtree(folder, ignore_errors=True)
    return [f"lab {name} is gone"]


def _end(lab: Lab) -> None:
    with suppress(FoundryError):
        ask(lab, "stop", STOP_SECONDS)
    since = owner.started(lab.pid)
    deadline = time.monotonic() + STOP_SECONDS
    while since is not None and owner.started(lab.pid) == since:
        if time.monotonic() > deadline:
            # Its machines end with it (setpriv --pdeathsig), and sweep() removes its namespaces.
            with suppress(ProcessLookupError):
                os.kill(lab.pid, signal.SIGKILL)
            deadline += STOP_SECONDS
        time.sleep(0.05)
