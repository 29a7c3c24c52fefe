"""A project's store that is changed behind its back, and what its publisher does with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foundry import files, gpg
from foundry.publish import flow, ledger
from foundry.publish.local import LocalStore
from tests.unit.publish.publishing import Project
from tests.unit.publish.signed_again import publisher


def put(source: Path, project: Project) -> None:
    """Put other files in place of a project's store."""
    shutil.rmtree(project.store)
    shutil.copytree(source, project.store)


def away(project: Project, target: Path) -> Path:
    """A copy of its store as it is now."""
    return Path(shutil.copytree(project.store, target))


def elsewhere(project: Project, folder: Path, **publish: Any) -> Project:
    """The same store and key at a machine that has seen nothing yet."""
    found = project.copy(folder, **publish)
    found.workspace.seen.unlink(missing_ok=True)
    return found


def renew(project: Project, **options: Any) -> list[str]:
    return flow.renew(project.settings, project.workspace, to=None, **options)


def promote(project: Project, version: str = "2") -> None:
    flow.promote(project.settings, project.workspace, version, channel="stable", to=None)


def head(project: Project) -> str:
    last = max((project.store / "log").iterdir())
    return hashlib.sha256(last.read_bytes()).hexdigest()


def index(project: Project) -> dict[str, Any]:
    text = gpg.opened(project.store / ledger.INDEX, project.key(), project.workspace.build)
    found: dict[str, Any] = json.loads(text)
    return found


def sign(project: Project, path: str, text: str) -> bytes:
    data = publisher(project).clearsign(text, project.workspace.build).encode()
    (project.store / path).write_bytes(data)
    return data


def before_ids(project: Project, expires: str | None = None) -> None:
    """Write log and index as a program did that knew neither ids nor a date by default."""
    last, state = "", ledger.State()
    for path in sorted((project.store / "log").iterdir()):
        said = json.loads(gpg.opened(path, project.key(), project.workspace.build))
        entry = {k: v for k, v in {**said, "previous": last}.items() if k not in ("store", "valid_days")}
        data = sign(project, f"log/{path.name}", files.canonical(entry) + "\n")
        last = hashlib.sha256(data).hexdigest()
        state = state.after(ledger.Entry(**entry), last)
    sign(project, ledger.INDEX, ledger.index_text(state, datetime.now(UTC).isoformat(), expires))


@contextmanager
def days_later(days: int) -> Iterator[None]:
    """Let it be some days later for whoever reads and publishes; gpg goes by its own clock."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("trust", "session", "suite_check"):
            patch.setattr(f"foundry.publish.{name}.datetime", Later)
        yield


@contextmanager
def after_each_change(look: Callable[[str], None]) -> Iterator[list[str]]:
    """Call look with the path of each file that changes in a store that is a folder; gives the paths so far."""
    changed: list[str] = []

    def wrapped(name: str) -> Callable[..., None]:
        real = getattr(LocalStore, name)

        def act(self: LocalStore, path: str, data: bytes) -> None:
            real(self, path, data)
            look(path)
            changed.append(path)

        return act

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "create"):
            patch.setattr(LocalStore, name, wrapped(name))
        yield changed
