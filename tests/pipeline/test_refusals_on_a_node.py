"""Every bad node.yml on a booted node: one sentence each, and what runs goes on as it was."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from foundry.machine import Machine
from patroni_node import notice
from patroni_node.configure import configure
from patroni_node.errors import EX_CONFIG, NodeError
from tests.pipeline.lab import Lab, feed, leads, write
from tests.unit.node.bad_files import BAD
from tests.unit.node.conftest import KEY, MINIMAL, Node

DRIVER = Path(__file__).with_name("guest_refusals.py")
SECONDS = 300
ON_CONSOLE = re.compile(r"patroni-node\[\d+\]: (patroni-node: [^\r\n]*)")
# What systemd tries, beside whatever has more than one line: one of each kind, and what the way to journal, console and
# prompt, or the unit's sandbox, could change. The program itself is given all of them.
BY_SYSTEMD = (
    "empty",
    "binary",
    "10 MB",
    "alias bomb",
    "broken quoting",
    "half a character as key",
    "cluster no",
    "address a name",
    "two stores",
    "known key",
    "no key",
    "unlike any key",
    "etcd at é",
    "etcd at -a",
    "etcd at [etcd1]",
    "secret from a missing file",
    "secret from nowhere",
    "tls of words",
    "patroni password",
    "option with a line break",
)
# One of each kind: no file at all, no YAML, a wrong type, a wrong value, two that contradict each other, a bad secret.
NEVER_RAN = ("empty", "alias bomb", "cluster no", "address a name", "two stores", "known key")


def expected(node: Node, raw: bytes) -> list[str]:
    """The lines that this program says about a file on a machine made of files."""
    node.paths.node_file.write_bytes(raw)
    with pytest.raises(NodeError) as caught:
        configure(node.paths, node.machine)
    return [line.replace(str(node.paths.root), "") for line in notice.lines(caught.value)]


def attempts(machine: Machine, files: Sequence[tuple[bytes, bool]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The node before, and what happened with each file; with it: whether systemd runs the program."""
    feed(machine, "cat >/tmp/refusals.py", DRIVER.read_bytes())
    pairs = [(base64.b64encode(raw).decode(), by_systemd) for raw, by_systemd in files]
    listed = gzip.compress(json.dumps(pairs).encode())
    lines = feed(machine, "sudo python3 /tmp/refusals.py", listed, SECONDS).decode().splitlines()
    before, *found = map(json.loads, lines)
    assert len(found) == len(files)
    return before, found


def ended_as_a_unit(one: dict[str, Any]) -> bool:
    """Whether systemd knows what the program ended with, and would start it again at once."""
    unit = {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": str(EX_CONFIG)}
    again = not any("too quickly" in message for message in one["others"])
    return one["restart"] == 1 and one["unit"] == unit and again


def test_each_is_refused_in_a_sentence_and_leaves_the_node_as_it_was(lab: Lab, tmp_path: Path) -> None:
    machine = lab.boot(lab.spec(1, {"secrets": {"key": KEY}}))
    leads(machine, "pg-srv1", "10.129.0.21")
    files = [text if isinstance(text, bytes) else text.encode() for _, text, _ in BAD]
    node, wrong = Node(tmp_path), []
    lines = [expected(node, raw) for raw in files]
    assert {name for name, _, _ in BAD}.issuperset(BY_SYSTEMD)
    by_systemd = [name in BY_SYSTEMD or len(said) > 1 for (name, _, _), said in zip(BAD, lines, strict=True)]
    before, found = attempts(machine, list(zip(files, by_systemd, strict=True)))
    assert before["running"]["primary"] == "200" and len(before["written"]) >= 11, before
    for (name, _, said), wanted, run, one in zip(BAD, lines, by_systemd, found, strict=True):
        seen = {
            "ended": ended_as_a_unit(one) if run else one["code"] == EX_CONFIG,
            "said": one["said"] == wanted and re.search(said, "\n".join(wanted).replace("patroni-node: ", "")),
            "prompt": one["issue"].replace("\\\\", "\\").startswith("\n".join(wanted[: notice.MAX_LINES - 1])),
            "not ready": not one["ready"],
            "files": one["written"] == before["written"],
            "processes": one["running"] == before["running"],
        }
        wrong += [f"{name}: {what}: {one}, and expected was {wanted}" for what, good in seen.items() if not good]
    assert not wrong, "\n".join(wrong)
    console = ON_CONSOLE.findall((machine.spec.folder / "console.log").read_text(errors="replace"))
    shown = [line for wanted, run in zip(lines, by_systemd, strict=True) if run for line in wanted]
    assert console == shown, "the console says the same, in the same order"

    write(machine, "/etc/patroni/node.yml", MINIMAL)
    machine.ssh("sudo systemctl restart patroni-node && sudo systemctl reload patroni")
    leads(machine, "pg-srv1", "10.129.0.21")
    assert machine.ssh("ls /etc/issue.d/*patroni* 2>/dev/null", check=False).output == ""


def test_a_node_that_never_ran_does_not_start(lab: Lab, tmp_path: Path) -> None:
    machine = lab.boot(lab.spec(1, None))
    node = Node(tmp_path)
    for name, text, _ in BAD:
        if name not in NEVER_RAN:
            continue
        raw = text if isinstance(text, bytes) else text.encode()
        feed(machine, "sudo install -m 0600 /dev/stdin /etc/patroni/node.yml", raw)
        assert machine.ssh("sudo systemctl start patroni", check=False, timeout=120).returncode != 0, name
        states = machine.ssh("systemctl show -P ActiveState patroni-node patroni consul").output
        # A unit whose assertion fails stays as it was.
        assert states.split() == ["failed", "inactive", "inactive"], f"{name}: {states}"
        assert machine.ssh("systemctl show -P ExecMainStatus patroni-node").output == str(EX_CONFIG)
        shown = machine.ssh("sudo journalctl -b -u patroni-node -t patroni-node -n 1 -o cat --no-pager").output
        assert shown == expected(node, raw)[-1], name
        made = machine.ssh("sudo ls -A /etc/patroni /etc/consul.d /var/lib/postgresql/15; ps -eo comm=", check=False)
        unwanted = {"patroni.yml", "patroni-node.json", "main", "postgres", "patroni", "consul"}
        assert not unwanted & set(made.output.split()), f"{name}: {made.output}"
