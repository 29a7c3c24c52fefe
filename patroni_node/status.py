"""`patroni-node status`: who this node is, whether it is as node.yml asks for, and whether it runs. Changes nothing."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

from patroni_node import (
    commands,
    effective,
    exposure,
    identity,
    install,
    member,
    notice,
    postmaster,
    problems,
    rest,
    status_text,
    store,
)
from patroni_node.commands import PATRONICTL, Run
from patroni_node.dcs import Consul
from patroni_node.decide import Decision, Machine, decide
from patroni_node.effective import Effective
from patroni_node.errors import EX_OK, NodeError
from patroni_node.paths import Paths
from patroni_node.report import Configured, File, Report
from patroni_node.rest import Ask

EX_PROBLEMS = 1
PATRONICTL_SECONDS = 2.3


def run(paths: Paths, *, as_json: bool) -> int:
    """Print the state of this node; returns 0 when all is as it should be, 1 when not."""
    found = gather(paths)
    said = problems.sentences(found)
    if as_json:
        print(json.dumps(status_text.document(found, said), indent=2))
    else:
        print(status_text.text(found, said))
    return EX_PROBLEMS if said else EX_OK


def gather(paths: Paths, machine: Machine | None = None, run: Run = commands.run, ask: Ask = rest.ask) -> Report:
    """Look at files, services, store and Patroni; everything that may not answer is asked at once.

    Args:
        paths: where everything is.
        machine, run, ask: for tests.
    """
    now = effective.read(paths.patroni_yml)
    of_store = store.questions(now.store) if now and now.store else []
    of_patroni = member.questions(now.patroni) if now else []
    answers = rest.ask_all([*of_store, *of_patroni], ask)
    configured = configuration(paths, machine or Machine(), now)
    names = ["patroni-node", *(["consul"] if configured.consul_here else []), "patroni"]
    units = commands.units(names, run)
    heard = answers()
    if now is None:
        return Report(configured, units)
    state = store.state(now.store, heard[: len(of_store)]) if now.store else None
    own, cluster = member.member(heard[-2]), member.cluster(heard[-1])
    paused: bool | None = own.paused or cluster.paused
    if not own.answers and not cluster.answers:
        paused = _paused(run) if state is not None and state.has_leader else None
    alone = not own.answers and postmaster.runs(paths, now.data_dir)
    return Report(configured, units, state, now.patroni.url, own, cluster, alone, paused)


def _paused(run: Run) -> bool | None:
    """Ask the store, through patronictl, what Patroni cannot tell; it is not asked where the store is down."""
    done = run([*PATRONICTL, "show-config"], PATRONICTL_SECONDS, commands.never)
    if done.code != 0:
        return None
    return re.search(r"^pause: true$", done.output, re.MULTILINE) is not None


def configuration(paths: Paths, machine: Machine, now: Effective | None) -> Configured:
    """Decide again what the files shall be, and compare them with what is there."""
    sources = tuple(_file(path) for path in [paths.node_file, *sorted(paths.drop_ins.glob("*.yml"))])
    last = tuple(notice.read(paths))
    try:
        decided = decide(paths, machine)
        outdated = set(install.different(decided.targets, machine.owners(paths)))
    except NodeError as error:
        return _refused(paths, now, sources, tuple(str(problem) for problem in error.problems), last)
    wanted = {target.path for target in decided.targets if target.content is not None}
    listed = [path for path in paths.rendered if path in wanted or path in outdated]
    dcs = decided.settings.dcs
    return Configured(
        cluster=decided.settings.cluster,
        name=decided.who.name,
        name_from=_name_from(paths, decided),
        instance_id=decided.who.instance_id,
        address=str(decided.address),
        consul_here=isinstance(dcs, Consul) and dcs.local,
        left_open=exposure.sentences(decided.settings, decided.version),
        sources=sources,
        rendered=tuple(_file(path, path not in outdated) for path in listed),
        last_refusal=last,
    )


def _refused(
    paths: Paths, now: Effective | None, sources: tuple[File, ...], refusals: tuple[str, ...], last: tuple[str, ...]
) -> Configured:
    try:
        instance = identity.instance_id(paths)
    except NodeError:
        instance = ""
    return Configured(
        cluster=now.cluster if now else "",
        name=now.name if now else "",
        name_from="patroni.yml" if now else "",
        instance_id=instance,
        address=now.address if now else "",
        consul_here=paths.consul_json.exists(),
        sources=sources,
        rendered=tuple(found for path in paths.rendered if (found := _file(path)).present),
        refusals=refusals,
        last_refusal=last,
    )


def _name_from(paths: Paths, decided: Decision) -> str:
    mark = decided.settings.document.marks.get(("name",))
    if decided.settings.name is not None:
        return f"{mark.file}:{mark.line}" if mark else str(paths.node_file)
    kept = identity.earlier(paths)
    return "kept" if kept is not None and kept.instance_id == decided.who.instance_id else "host name"


def _file(path: Path, current: bool | None = None) -> File:
    try:
        stamp = path.lstat().st_mtime
    except OSError:
        return File(path, None, current)
    return File(path, datetime.fromtimestamp(stamp).astimezone(), current)
