"""Whatever patroni-node accepts becomes a file that `patroni --validate-config` of the image accepts."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from hypothesis import given

from foundry.machine import Machine
from patroni_node.configure import configure
from patroni_node.document import merge
from patroni_node.errors import NodeError
from tests.pipeline.lab import Lab, feed
from tests.unit.node import documents
from tests.unit.node.conftest import MINIMAL, Node

DRIVER = Path(__file__).with_name("guest_judge.py")
SECONDS = 60


class Judge:
    """Patroni in a guest, which says what it has against a patroni.yml: nothing, if all is well."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        feed(machine, "cat >/tmp/judge.py", DRIVER.read_bytes())
        self.log = folder / "judge.log"
        command = "sudo -u postgres /usr/lib/patroni-venv/bin/python3 /tmp/judge.py"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["ssh", "-F", machine.ssh_config, "node", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.stdout.close()

    def __call__(self, text: str) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(text).encode() + b"\n")
        self._process.stdin.flush()
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
            assert ready, f"no answer within {SECONDS} s; the last words: {answer!r}\n{self.log.read_text()}"
            piece = os.read(self._process.stdout.fileno(), 65536)
            assert piece, f"it has ended: {self.log.read_text()}"
            answer += piece
        code, words = json.loads(answer)
        return words or (f"exit code {code}" if code else "")


@pytest.fixture(scope="module")
def judge(built: Path, playground: Path) -> Iterator[Judge]:
    with Lab(built, playground / "rendered") as lab, Judge(lab.boot(lab.spec(1, None)), lab.folder) as found:
        yield found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return documents.furnish(Node(tmp_path_factory.mktemp("node")))


def rendered(node: Node, text: str) -> str:
    node.paths.identity.unlink(missing_ok=True)
    node.paths.security.unlink(missing_ok=True)
    node.write(text)
    configure(node.paths, node.machine)
    return node.paths.patroni_yml.read_text(encoding="utf-8")


@documents.often(3)
@given(document=documents.good())
def test_patroni_accepts_what_is_rendered(judge: Judge, node: Node, document: dict[str, Any]) -> None:
    text = documents.written(document)
    words = judge(rendered(node, text))
    assert not words, f"patroni --validate-config: {words}\nof this node.yml:\n{text}"


@documents.often(3)
@given(document=documents.changed())
def test_patroni_accepts_what_is_not_refused(judge: Judge, node: Node, document: dict[str, Any]) -> None:
    """Most of these are refused; but what is taken, by whatever oversight, must be right for Patroni too."""
    # What is merged over the result is its writer's to answer for.
    document.pop("patroni", None)
    text = documents.written(document)
    try:
        made = rendered(node, text)
    except NodeError:
        return
    words = judge(made)
    assert not words, f"patroni --validate-config: {words}\nof this node.yml:\n{text}"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"scope": 15}, "scope 15 is not a string"),
        ({"name": None}, "name  is not defined"),
        ({"consul": None}, "consul"),
        ({"consul": {"host": "not a host:8500"}}, "consul.host"),
        ({"consul": {"host": "127.0.0.1:99999"}}, "consul.host"),
        ({"tags": {"nofailover": True, "failover_priority": 1}}, "failover_priority"),
        ({"watchdog": {"mode": "on"}}, "watchdog.mode"),
        ({"bootstrap": {"dcs": {"postgresql": {"parameters": {"max_connections": "many"}}}}}, "max_connections"),
        ({"postgresql": {"connect_address": "localhost:5432"}}, "postgresql.connect_address"),
        ({"postgresql": {"bin_dir": "/usr/lib/postgresql/14/bin"}}, "postgresql.bin_dir"),
        ({"postgresql": {"authentication": {"replication": {"username": 1}}}}, "username"),
    ],
)
def test_patroni_would_refuse(judge: Judge, node: Node, broken: dict[str, Any], said: str) -> None:
    """It is the real judge: each of these, in a file that it takes otherwise, is refused."""
    good = rendered(node, MINIMAL)
    assert not judge(good)
    assert said in judge(yaml.safe_dump(merge(yaml.safe_load(good), broken)))


def test_patroni_would_refuse_what_is_no_yaml(judge: Judge) -> None:
    assert judge("scope: [pg\n")
