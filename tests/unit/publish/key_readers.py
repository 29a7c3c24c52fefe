"""Somebody who was given a publisher's key once, and remembers what its stores have served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry.publish import consumer
from tests.unit.publish.gpg_home import Home
from tests.unit.publish.publishing import Project


class Reader:
    """given: the key, as it was exported then. key: its fingerprint, if it is not the publisher's present one."""

    def __init__(self, publisher: Project, home: Home, folder: Path, key: str = "") -> None:
        self.project = Project.at(folder)
        self.store = publisher.store
        self.given = home.export(key or key_of(publisher), folder / "given.gpg")

    def pin(self, home: Home, key: str) -> None:
        """Give it another key, in place of the one before."""
        self.given.unlink()
        home.export(key, self.given)

    def check(self, wanted: str = "candidate", **options: Any) -> str:
        workspace = self.project.workspace
        return consumer.verify_release(
            self.project.settings, workspace, str(self.store), self.given, wanted=wanted, title=None, **options
        )[1]


def key_of(project: Project) -> str:
    """The fingerprint of the key that foundry.yml names."""
    return project.settings.publish.key or ""
