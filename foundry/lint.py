"""Every static check of the sources; all of them run, whatever the first ones find."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from foundry import log, run
from foundry.errors import CommandFailed, FoundryError
from foundry.workspace import Workspace

_SHELLS = (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash", b"#!/usr/bin/env sh", b"#!/bin/dash")
_NOT_OURS = {"__pycache__", "build", "node_modules"}


@dataclass(frozen=True)
class Outcome:
    """One check: its name, whether it passed, what it printed, and its seconds."""

    name: str
    passed: bool
    output: str
    seconds: float


def lint(workspace: Workspace) -> list[Outcome]:
    """Run every check, reporting each as it ends. Raises FoundryError, which names those that failed."""
    outcomes = []
    for name, check in checks(workspace):
        begin = time.monotonic()
        passed, output = check()
        outcome = Outcome(name, passed, output, time.monotonic() - begin)
        outcomes.append(outcome)
        if not passed:
            log.info(f"{name}:\n{output}")
        log.info(f"{name:<16} {'ok' if passed else 'FAILED':<7}{outcome.seconds:5.1f} s")
    failed = [o.name for o in outcomes if not o.passed]
    if failed:
        raise FoundryError(
            f"lint: {', '.join(failed)} failed",
            hint="what each found is above; `ruff format` and `ruff check --fix` in .venv/bin mend much of it",
        )
    return outcomes


Check = Callable[[], tuple[bool, str]]


def checks(workspace: Workspace) -> list[tuple[str, Check]]:
    """The checks in their order, by name."""
    shell = [str(p.relative_to(workspace.root)) for p in shell_scripts(workspace.root)]
    tools: list[tuple[str, list[str]]] = [
        ("ruff check", [*_module("ruff"), "check", "--quiet", "--output-format", "concise", "."]),
        ("ruff format", [*_module("ruff"), "format", "--check", "--output-format", "concise", "."]),
        ("mypy", [*_module("mypy"), "--strict", "foundry", "patroni_node"]),
        ("shellcheck", ["shellcheck", "--external-sources", *shell]),
        ("codespell", [*_module("codespell_lib")]),
    ]
    found: list[tuple[str, Check]] = [(name, _tool(workspace, name, args)) for name, args in tools]
    return [*found, ("packer validate", lambda: _packer(workspace))]


def shell_scripts(root: Path) -> Iterator[Path]:
    """Every file of the project that begins as a shell script does, in order."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _NOT_OURS and (not f.startswith(".") or f == ".ci"))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix == ".j2" or path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as stream:
                if stream.readline(80).startswith(_SHELLS):
                    yield path


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _tool(workspace: Workspace, name: str, args: list[str]) -> Check:
    def check() -> tuple[bool, str]:
        result = run.run(args, name=name.replace(" ", "-"), cwd=workspace.root, check=False)
        return result.returncode == 0, result.output

    return check


def _packer(workspace: Workspace) -> tuple[bool, str]:
    from foundry import packer

    try:
        workspace.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=workspace.work, prefix="validate.") as scratch:
            packer.validate(workspace, Path(scratch))
    except CommandFailed as error:
        return False, "\n".join(part for part in (error.brief, error.details) if part)
    return True, ""
