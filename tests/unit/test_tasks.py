"""The tasks: what they pass on, what they print where, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context

import task_parts
import tasks
import tasks_publish
from foundry import build, clean, errors, lint, recorded, run
from foundry.workspace import Workspace

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (task_parts, tasks):
        monkeypatch.setattr(module, "WORKSPACE", Workspace(PROJECT, tmp_path, "run"))


def call(task: Any, **options: Any) -> None:
    task(Context(), **options)


def raising(error: BaseException) -> Any:
    def act(*_: object, **__: object) -> None:
        raise error

    return act


KINDS = [errors.FoundryError, *errors.FoundryError.__subclasses__()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_each_error_has_its_exit_code(
    kind: type[errors.FoundryError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lint, "lint", raising(kind("it broke", hint="mend it")))
    with pytest.raises(SystemExit) as caught:
        call(tasks.lint)
    assert caught.value.code == kind.code
    assert capsys.readouterr() == ("", "error: it broke\n  hint: mend it\n")


def test_an_unexpected_error_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(clean, "clean", raising(KeyError("x")))
    with pytest.raises(SystemExit) as caught:
        call(tasks.clean)
    assert caught.value.code == 70
    assert capsys.readouterr().err.startswith("error: unexpected KeyError")
    assert "Traceback" in (tmp_path / "logs/run/unexpected.log").read_text()


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lint, "lint", raising(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as caught:
        call(tasks.lint)
    assert caught.value.code == 130
    assert "interrupted" in capsys.readouterr().err


MIRRORS = [f"archive.{name}=http://127.0.0.1/debian" for name in ("mirror", "security_mirror", "updates")]


def test_config_prints_rows_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    call(tasks.show_config, set=[*MIRRORS, "build.cpus=7"])
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines() if line.startswith("build.cpus")] == [
        ["build.cpus", "7", "--set"]
    ]
    assert err == ""


def test_config_as_json_takes_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOUNDRY_SET", "build.cpus=7")
    call(tasks.show_config, set=MIRRORS, json=True)
    rows = json.loads(capsys.readouterr().out)
    assert {"key": "build.cpus", "value": 7, "source": "environment"} in rows


def test_a_bad_setting_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(tasks.show_config, set=["build.cpu=7"])
    assert caught.value.code == 2
    assert "did you mean cpus?" in capsys.readouterr().err


def test_days_without_a_key_that_is_replaced_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(tasks_publish.renew_store, days="7")
    assert caught.value.code == 2
    assert "--days is about --replace-key" in capsys.readouterr().err


def test_clean_passes_its_option_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def fake(workspace: Workspace, *, everything: bool) -> clean.Cleaned:
        asked.append(everything)
        return clean.Cleaned((), 0)

    monkeypatch.setattr(clean, "clean", fake)
    call(tasks.clean)
    call(tasks.clean, all=True)
    assert asked == [False, True]
    assert capsys.readouterr().out == "nothing to remove\n" * 2


def test_logs_go_to_this_runs_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Path | None] = []

    def fake(workspace: Workspace) -> list[lint.Outcome]:
        seen.append(run._log_dir)
        return []

    monkeypatch.setattr(lint, "lint", fake)
    call(tasks.lint)
    assert seen == [tmp_path / "logs/run"]


def test_paths_are_seen_from_where_the_user_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOUNDRY_CALLED_FROM", str(tmp_path))
    assert task_parts.given("a/manifest.json") == tmp_path / "a/manifest.json"
    assert task_parts.given("/x") == Path("/x")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cluster-logs", []),
        ("cluster-logs --follow", []),
        ("cluster-logs --name a", []),
        ("cluster-logs pg-srv1 --follow", ["pg-srv1"]),
        ("cluster-logs --follow pg-srv1", ["pg-srv1"]),
        ("cluster-logs --name=a pg-srv1", ["pg-srv1"]),
    ],
)
def test_the_node_of_cluster_logs_may_be_left_out(line: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.sys, "argv", ["inv", *line.split()])
    node = next(a for a in tasks.cluster_logs.get_arguments() if a.name == "node")
    assert (node.positional, node.value) == ((True, None) if words else (False, ""))


def test_from_builds_what_the_manifest_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of foundry.yml is read, and what the user has set is passed on."""
    asked: list[Any] = []

    class Made:
        def summary(self) -> list[str]:
            return ["rebuilt"]

    def load(path: Path, image: str, overrides: Any, workspace: Workspace) -> str:
        asked.append((path, image, [(o.key, o.source) for o in overrides]))
        return "recorded"

    def rebuild(found: str, workspace: Workspace, **options: bool) -> Made:
        asked.append((found, options))
        return Made()

    monkeypatch.setattr(recorded, "load", load)
    monkeypatch.setattr(build, "rebuild_image", rebuild)
    monkeypatch.setenv("FOUNDRY_SET", "build.cpus=4")
    monkeypatch.setenv("FOUNDRY_CALLED_FROM", str(tmp_path))
    call(tasks.build_image, from_="manifest.json", image="x", verify=False, set=["archive.mirror=http://m"])
    assert asked == [
        (tmp_path / "manifest.json", "x", [("build.cpus", "environment"), ("archive.mirror", "--set")]),
        ("recorded", {"verify": False, "offline": False}),
    ]


def test_from_is_an_option_of_its_own() -> None:
    names = [name for argument in tasks.build_image.get_arguments() for name in argument.names]
    assert "from" in names and "from_" not in names
