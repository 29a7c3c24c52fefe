"""A node whose node.yml is missing and at last right, on the image booted by UEFI; and one where it is wrong.

A container says so as well as a machine that has firmware, boot loader, kernel and a serial port of its own.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import run
from foundry.machine import MAKERS, Machine, Spec, kvm, ssh
from foundry.machine.seed import NodeSeed
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, gone, until
from tests.pipeline.lab import Lab

BOOT_SECONDS = 600
SENTENCE = re.compile(r"patroni-node: (/etc/patroni/node\.yml.*)")
UNITS = ("patroni-node", "consul", "patroni")


@pytest.fixture(scope="module")
def node(built: Path, playground: Path) -> Iterator[Machine]:
    """The image as a virtual machine, its address by DHCP, from a cloud that gave it no node.yml."""
    workspace = Workspace(ROOT, built, "node")
    folder = playground / "node"
    private, public = ssh.key_pair(folder / "keys")
    image = max(built.glob("images/*/*.qcow2"), key=lambda p: p.parent.stat().st_mtime)
    base = max(built.glob("base/*/stage.json"), key=lambda p: p.stat().st_mtime).parent
    spec = Spec(
        name="node",
        image=image,
        seed=NodeSeed(f"i-{secrets.token_hex(6)}", "pg-srv1", None, public),
        folder=folder / "vm",
        private_key=private,
        firmware="uefi",
        accelerator=kvm.accelerator("auto", base / "vmlinuz", base / "initrd.img", workspace),
    )
    run.keep_logs_in(folder / "logs")
    with MAKERS["vm"](spec, workspace) as machine:
        machine.boot()
        machine.wait_ready(BOOT_SECONDS)
        yield machine
    gone(folder)


@pytest.fixture(scope="module")
def container(built: Path, playground: Path) -> Iterator[Machine]:
    """The image as a container, from a cloud that gave it no node.yml."""
    with Lab(built, playground / f"lab-{secrets.token_hex(3)}") as lab:
        yield lab.boot(lab.spec(1, None))


def says(node: Machine, *words: str) -> None:
    """Wait until the console's newest sentence has these words; one sentence says what is wrong and what to do."""

    def look() -> tuple[bool, object]:
        found = SENTENCE.findall(node.console(60))
        newest = found[-1] if found else ""
        return all(word in newest for word in (*words, "then run `systemctl start patroni`")), node.console(60)

    until(look, f"the console says {words}", 30)


def write(node: Machine, text: str) -> None:
    node.ssh(f"printf %s {shlex.quote(text)} | sudo tee /etc/patroni/node.yml >/dev/null")


def refuses(node: Machine) -> None:
    """Patroni does not start, and neither does what it stands on."""
    assert node.ssh("sudo systemctl start patroni", timeout=120, check=False).returncode != 0
    stands_still(node)


def stands_still(node: Machine) -> None:
    answer = node.ssh(
        f"systemctl show -P ActiveState {' '.join(UNITS)}; ps -eo comm= | grep -E '^(postgres|consul|patroni)'",
        check=False,
    )
    states = answer.output.split()
    assert set(states) <= {"failed", "inactive"}, answer.output
    assert len(states) == len(UNITS)


def test_it_was_booted_by_uefi(node: Machine) -> None:
    assert node.ssh("test -d /sys/firmware/efi && echo yes").output == "yes"


def test_without_node_yml_the_console_says_what_to_set(node: Machine) -> None:
    says(node, "/etc/patroni/node.yml: is missing", "cluster:", "secrets:")
    stands_still(node)
    assert not node.ssh("sudo ls /etc/patroni /var/lib/postgresql").output.count("yml")


def test_without_node_yml_nothing_else_has_failed(node: Machine) -> None:
    """cloud-init did its part, and the login prompt shows the sentence as well."""
    assert json.loads(node.ssh("cloud-init status --wait --format json").output)["status"] == "done"
    assert "is missing" in node.ssh("cat /run/issue.d/*patroni* /etc/issue.d/*patroni* 2>/dev/null", check=False).output


def test_unparsable(container: Machine) -> None:
    write(container, "cluster: [pg-15-cluster\nsecrets:\n")
    refuses(container)
    says(container, "is not valid YAML")


def test_incomplete(container: Machine) -> None:
    write(container, "cluster: pg-15-cluster\n")
    refuses(container)
    says(container, "secrets")


def test_right_at_last(node: Machine) -> None:
    write(node, f"cluster: pg-15-cluster\nsecrets:\n  key: {secrets.token_urlsafe(24)}\n")
    node.ssh("sudo systemctl start patroni", timeout=180)

    def writes() -> tuple[bool, object]:
        answer = node.ssh("sudo -u postgres psql -Atc 'SELECT NOT pg_is_in_recovery()'", check=False).output
        return answer == "t", answer

    def leads() -> tuple[bool, object]:
        command = "sudo patronictl -c /etc/patroni/patroni.yml list -f json"
        answer = node.ssh(command, check=False, timeout=180).output
        members = json.loads(answer) if answer.startswith("[") else []
        return [(m["Member"], m["Role"], m["State"]) for m in members] == [("pg-srv1", "Leader", "running")], answer

    # patronictl takes an emulated machine seconds, which PostgreSQL would have to wait for.
    until(writes, "PostgreSQL takes writes", 180)
    until(leads, "pg-srv1 leads", 180)
    assert not node.ssh("ls /etc/issue.d/*patroni* 2>/dev/null", check=False).output
