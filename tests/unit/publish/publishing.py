"""A project with small images that count as proved, and a store beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foundry import evidence, files, gpg, image, verify
from foundry.config import Config
from foundry.publish import consumer, flow
from foundry.verify import Outcome, Verdict
from foundry.workspace import Workspace
from tests.unit.publish import small_image
from tests.unit.publish.made_versions import BOOT

NAME = "debian-12"
ROOT = Path(__file__).parents[3]
LAUNCHING = ROOT / "docs" / "launching.md"
NOW = datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Project:
    """workspace, settings: of the project. store: the folder that it publishes to."""

    workspace: Workspace
    settings: Config
    store: Path

    @classmethod
    def at(cls, folder: Path, **publish: Any) -> Project:
        workspace = Workspace(folder / "project", folder / "project" / "build", "run")
        files.write(workspace.image_suite / "test_x.py", "def test(): pass\n")
        shutil.copytree(ROOT / "templates" / "offline", workspace.templates / "offline")
        files.write(workspace.launching, LAUNCHING.read_text(encoding="utf-8"))
        known = {"key": "throw-away", "to": str(folder / "store")}
        facts = {"images": {NAME: {}}, "publish": {**known, **publish}}
        return cls(workspace, Config.model_validate(facts), folder / "store")

    def copy(self, folder: Path, **publish: Any) -> Project:
        """This project and its store in another folder. publish: settings that are other ones there."""
        shutil.copytree(self.store.parent, folder, dirs_exist_ok=True)
        moved = replace(self.workspace, root=folder / "project", build=folder / "project" / "build")
        known = self.settings.publish.model_copy(update={"to": str(folder / "store"), **publish})
        return Project(moved, self.settings.model_copy(update={"publish": known}), folder / "store")

    def build_with(self, version: str, **facts: Any) -> Path:
        """An image whose manifest says something else. The disk's contents are not compared with it."""
        return self.build(version, facts=facts)

    def build(self, version: str, *outcomes: Outcome, facts: Mapping[str, Any] | None = None, **changes: Any) -> Path:
        """An image and its verdict; returns the manifest's path. facts: of the manifest. changes: of the verdict."""
        folder = self.workspace.images / version
        disk = folder / f"{NAME}-{version}.qcow2"
        files.write(disk, f"disk of {version}\n" * 100)
        manifest = {
            **small_image.manifest(),
            **(facts or {}),
            "name": NAME,
            "version": version,
            "built": NOW,
            "files": [{"name": disk.name, "sha256": files.sha256(disk), "size": disk.stat().st_size}],
        }
        files.write_json(folder / image.MANIFEST, manifest)
        passed = outcomes or (Outcome("a", "booted", "passed", 1.0), Outcome("b", "rebooted", "passed", 1.0))
        known: dict[str, Any] = {
            "image": files.sha256(disk),
            "file": disk.name,
            "suite": verify.suite_digest(self.workspace),
            "machine": "vm",
            "firmware": "bios",
            "accelerator": "tcg",
            "host": {},
            "started": NOW,
            "ended": NOW,
            "boot_seconds": 1.0,
            "reboot_seconds": 1.0,
            "seconds": 2.0,
        }
        path = verify.verdict_path(disk)
        console = self.workspace.build / "console.log"
        files.write(console, f"Debian GNU/Linux 12 {version}\n")
        boots = [replace(BOOT, phase=p, kernel=BOOT.kernel + sum(version.encode())) for p in verify.PHASES]
        known["evidence"] = evidence.write(path, console, boots, "secret")
        found = Verdict(**{**known, **changes}, outcomes=passed)
        files.write_json(path, {**asdict(found), "passed": found.passed})
        files.write(path.with_suffix(".xml"), f'<testsuites name="{version}"/>\n')
        return folder / image.MANIFEST

    def publish(self, version: str, channel: str = "candidate") -> list[str]:
        """Build and publish a version."""
        manifest = self.workspace.images / version / image.MANIFEST
        if not manifest.exists():
            self.build(version)
        return flow.publish(self.settings, self.workspace, name=None, manifest=manifest, to=None, channel=channel)

    def key(self) -> Path:
        """The public key, as it was given to people."""
        target = self.workspace.build / "given.gpg"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            gpg.throw_away(self.workspace.publisher, "x").public(target)
        return target

    def check(self, wanted: str = "candidate", url: str | None = None, **options: Any) -> list[str]:
        """What a consumer finds. url: of the store, if it is not the folder."""
        return consumer.verify_release(
            self.settings, self.workspace, url or str(self.store), self.key(), wanted=wanted, title=None, **options
        )


def flip(path: Path, at: int = -20) -> None:
    """Turn one bit of a file over, in the byte at this place."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
