"""A store whose key is replaced by another: what its publisher does, and what a thief of the old one would write."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

from foundry import files
from foundry.publish import flow, ledger, replacement, session
from tests.unit.publish.changed_stores import head
from tests.unit.publish.gpg_home import Home
from tests.unit.publish.key_readers import Reader
from tests.unit.publish.publishing import Project

OLD, NEW, THIRD, THIEF = (f"{name} <{name}@example.org>" for name in ("old", "new", "third", "thief"))


class Store:
    """A publisher with keys OLD, NEW and THIEF in one gpg, that has published version 1 by OLD."""

    def __init__(self, home: Home, folder: Path, by_old: Project) -> None:
        self.home, self.folder, self.by_old = home, folder, by_old
        self.old, self.new, self.thief = (home.fingerprints(user)[0] for user in (OLD, NEW, THIEF))
        self.by_new = self.signing(self.new)

    @classmethod
    def made(cls, home: Home, folder: Path) -> Store:
        keys = [home.key(user) for user in (OLD, NEW, THIEF)]
        found = cls(home, folder, Project.at(folder / "publisher", key=keys[0]))
        found.by_old.publish("1")
        return found

    def copy(self, home: Home, folder: Path) -> Store:
        """The same elsewhere. home: empty, for a copy of its gpg."""
        self.home.copy_to(home.folder)
        return Store(home, folder, self.by_old.copy(folder / "publisher"))

    def signing(self, key: str) -> Project:
        """The same project, whose foundry.yml names another key."""
        facts = self.by_old.settings.publish.model_copy(update={"key": key})
        settings = self.by_old.settings.model_copy(update={"publish": facts})
        return Project(self.by_old.workspace, settings, self.by_old.store)

    def reader(self, name: str, key: str) -> Reader:
        """Somebody who has seen nothing yet, and pins a key."""
        return Reader(self.by_old, self.home, self.folder / name, key)

    def replace(self, project: Project | None = None, new: str = "", days: int = 90) -> list[str]:
        return replace(project or self.by_old, new or self.new, days)

    @property
    def log(self) -> list[str]:
        return [path.name for path in sorted((self.by_old.store / "log").iterdir())]

    def add(self, by: str, **facts: Any) -> None:
        """Put an entry at the log's end, signed by a key, or exactly one subkey if by ends with "!"."""
        number = len(self.log) + 1
        entry = {
            "sequence": number, "previous": head(self.by_old), "action": "renew", "image": "", "version": "",
            "who": "x", "when": session.datetime.now(UTC).isoformat(), **facts,
        }  # fmt: skip
        self.home.clearsign(files.canonical(entry), self.by_old.store / ledger.path_of(number), by)

    def name_key(self, by: str, new: str, **facts: Any) -> None:
        """Put an entry at the log's end by which a key replaces the present one."""
        self.add(by, **{"action": "replace-key", "key": new, "key_days": 90, **facts})

    def show(self, by: str, *, back: int = 0) -> None:
        """Write the index, signed by a key. back: of how many entries before the last one."""
        state = ledger.State()
        for name in self.log[: len(self.log) - back]:
            path = self.by_old.store / "log" / name
            text = path.read_text(encoding="utf-8").split("\n\n", 1)[1].split("\n-----BEGIN")[0]
            entry = ledger.Entry(**json.loads(text))
            state = state.after(entry, hashlib.sha256(path.read_bytes()).hexdigest())
        now = session.datetime.now(UTC)
        dates = (moment.isoformat(timespec="seconds") for moment in (now, now + timedelta(days=30)))
        (self.by_old.store / ledger.INDEX).unlink()
        self.home.clearsign(ledger.index_text(state, *dates), self.by_old.store / ledger.INDEX, by)

    def bring_key(self, key: str) -> None:
        """Put a key beside the others into the store."""
        path = self.by_old.store / "key.asc"
        path.write_text(path.read_text(encoding="utf-8") + self.home.gpg("--armor", "--export", key), encoding="utf-8")

    def everything(self) -> dict[Path, bytes]:
        """All files of the store."""
        return {p: p.read_bytes() for p in self.by_old.store.rglob("*") if p.is_file()}


def replace(project: Project, new: str, days: int = 90, **options: Any) -> list[str]:
    return replacement.replace_key(project.settings, project.workspace, new, days=days, to=None, **options)


def promote(project: Project) -> None:
    flow.promote(project.settings, project.workspace, "1", channel="stable", to=None)
