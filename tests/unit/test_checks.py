"""What `invoke lint`, `invoke test` and `invoke lock` run, in which order, and what a failure does to the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundry import config, lint, locks, results, run, suite
from foundry.errors import CommandFailed, ConfigError, FetchError, FoundryError
from foundry.workspace import Workspace

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def cfg() -> config.Config:
    return config.load(PROJECT / "foundry.yml")


def test_every_check_runs_though_the_first_fails(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def check(name: str, passed: bool) -> tuple[str, lint.Check]:
        def act() -> tuple[bool, str]:
            ran.append(name)
            return passed, "output"

        return name, act

    monkeypatch.setattr(lint, "checks", lambda _: [check("one", False), check("two", True), check("three", False)])
    with pytest.raises(FoundryError, match="lint: one, three failed") as caught:
        lint.lint(workspace)
    assert caught.value.code == 1
    assert ran == ["one", "two", "three"]


def test_shell_scripts_are_found_by_their_first_line(tmp_path: Path) -> None:
    shell = {"inv": "#!/bin/sh\n", ".ci/run": "#!/usr/bin/env bash\n", "debian/x.postinst": "#!/bin/sh -e\n"}
    other = {
        "a.py": "#!/usr/bin/env python3\n",
        "build/x": "#!/bin/sh\n",
        ".venv/x": "#!/bin/sh\n",
        "t.j2": "#!/bin/sh\n",
    }
    for name, text in {**shell, **other}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert {str(p.relative_to(tmp_path)) for p in lint.shell_scripts(tmp_path)} == set(shell)


class Parts:
    """The parts of the suite: how each one ends, which a test changes, and which have run."""

    def __init__(self) -> None:
        self.ends: dict[str, FoundryError | None] = {}
        self.ran: list[str] = []

    def run(self, name: str) -> None:
        self.ran.append(name)
        if error := self.ends.get(name):
            raise error


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    found = Parts()
    monkeypatch.setattr(lint, "lint", lambda _: found.run("lint"))
    monkeypatch.setattr(suite, "pytest", lambda _, folder, show, *options, tests: found.run(folder.name))
    monkeypatch.setattr(suite, "_image", lambda *_: found.run("image"))
    return found


def outcomes(found: results.Results) -> list[tuple[str, str]]:
    return [(part.name, part.outcome) for part in found.parts]


def test_the_whole_suite(cfg: config.Config, workspace: Workspace, parts: Parts) -> None:
    found = suite.test(cfg, workspace, suite.Wish(), print)
    assert [name for name, _ in outcomes(found)] == ["lint", "unit", "image", "cluster", "pipeline"]
    assert {outcome for _, outcome in outcomes(found)} == {"passed"}


def test_the_fast_suite(cfg: config.Config, workspace: Workspace, parts: Parts) -> None:
    assert outcomes(suite.test(cfg, workspace, suite.Wish(fast=True), print)) == [
        ("lint", "passed"),
        ("unit", "passed"),
    ]


@pytest.mark.parametrize(
    ("failing", "ran"),
    [
        ("lint", ["lint", "unit"]),
        ("unit", ["lint", "unit"]),
        ("image", ["lint", "unit", "image"]),
        ("pipeline", ["lint", "unit", "image", "cluster", "pipeline"]),
        ("cluster", ["lint", "unit", "image", "cluster", "pipeline"]),
    ],
)
def test_a_failing_part_fails_the_suite_and_what_can_still_tell_something_is_run(
    cfg: config.Config, workspace: Workspace, parts: Parts, failing: str, ran: list[str]
) -> None:
    parts.ends[failing] = CommandFailed("no")
    with pytest.raises(FoundryError, match=f"test: {failing} failed"):
        suite.test(cfg, workspace, suite.Wish(), print)
    assert parts.ran == ran


def test_pytest_is_shown_as_it_prints_and_no_tests_are_a_failure(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(run, "run", lambda args, **options: asked.update(options, args=args))
    monkeypatch.setenv("CI", "true")
    suite.pytest(workspace, workspace.unit_suite, print)
    assert asked["args"][1:4] == ["-m", "pytest", "tests/unit"]
    assert asked["on_line"] is print
    assert asked["env"]["CI"] == "true"
    assert asked.get("check", True)


WISH = "# why\npatroni[consul,systemd]==4.1.4\npsycopg2>=2.9\n"


def test_patroni_in_follows_the_configuration() -> None:
    assert locks.with_patroni(WISH, "4.1.5", ("etcd3",)) == "# why\npatroni[etcd3]==4.1.5\npsycopg2>=2.9\n"
    assert "\npatroni==4.1.5\n" in locks.with_patroni(WISH, "4.1.5", ())
    with pytest.raises(ConfigError):
        locks.with_patroni("psycopg2\n", "4.1.5", ())


@pytest.fixture
def requirements(workspace: Workspace) -> Path:
    workspace.requirements.mkdir()
    (workspace.requirements / "patroni.in").write_text(WISH)
    (workspace.requirements / "other.in").write_text("x\n")
    (workspace.requirements / "other.txt").write_text("locked x\n")
    return workspace.requirements


def test_lock_changes_what_is_new_only(
    cfg: config.Config, workspace: Workspace, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(args: list[object], *, cwd: Path, **_: object) -> None:
        given, target = cwd / str(args[-3]), cwd / str(args[-1])
        target.write_text(f"locked {given.read_text()}")

    monkeypatch.setattr(run, "run", fake)
    changed = locks.lock(cfg, workspace)
    assert [p.name for p in changed] == ["patroni.in", "patroni.txt"]
    assert "patroni[consul,etcd3,systemd]==4.1.5" in (requirements / "patroni.txt").read_text()
    assert list(workspace.work.iterdir()) == []


def test_a_lock_that_cannot_be_made_changes_nothing(
    cfg: config.Config, workspace: Workspace, requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(*_: object, **__: object) -> None:
        raise CommandFailed("uv exited 1")

    monkeypatch.setattr(run, "run", fake)
    with pytest.raises(FetchError):
        locks.lock(cfg, workspace)
    assert (requirements / "patroni.in").read_text() == WISH
    assert not (requirements / "patroni.txt").exists()
