"""patroni-node starts in a fraction of a second because each command loads what it needs, and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from patroni_node import commands

ROOT = Path(__file__).parents[2]
HEAVY = {"yaml", "jinja2", "jsonschema"}
PROGRAM = """
import contextlib, io, json, sys
from patroni_node import cli
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    cli.main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.real_process
@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--version"], set()),
        (["tuning", "--memory", "4096MiB", "--cpus", "2", "--json"], set()),
        (["check", "tests/unit/node/data/tutorial.yml"], {"yaml"}),
        (["check", "files/usr/share/patroni-node/node.example.yml"], {"yaml", "jsonschema"}),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else None,
)
def test_a_command_loads_what_it_needs(words: list[str], needed: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert HEAVY & set(json.loads(done.stdout)) == needed


@pytest.mark.real_process
def test_what_a_program_reads_is_no_argument_of_it() -> None:
    """Every account of a node sees the arguments of a process."""
    ended = commands.feed(["sh", "-c", "tr '\\0' ' ' </proc/$$/cmdline; cat"], "a verifier\n", 10)
    assert (ended.code, ended.output.count("a verifier")) == (0, 1)
