"""What publishing costs on this machine, beside plain copying: seconds, and bytes that are sent.

A version is counted by what is in the store's folder afterwards, so it does not matter what the publisher says of it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from foundry import config, console, evidence, files, gpg, image, log, run, verify
from foundry.config import Config
from foundry.image import Release
from foundry.publish import bundle, consumer, flow, gate
from foundry.publish.aptrepo import FOLDER
from foundry.settings import Publish
from foundry.workspace import Workspace

VERSIONS = 10
# Of these a build folder of one's own is made; all else that a build has left is only read.
_OWN = {"images", "work", "logs", "lock", "publisher", "releases", "fetched", "failed", "labs", "seen.json"}

Seen = Mapping[str, tuple[int, int, int]]
"""The files of a store by their path: inode, time of the last change, size."""


@dataclass(frozen=True)
class Row:
    """One number beside another of the same run. unit: s, B, or what is counted. limit: whether it must not be more."""

    name: str
    value: float
    unit: str
    beside: str
    other: float
    limit: bool = False


def ready(settings: Config, workspace: Workspace) -> Release:
    """The newest image, if it may be published. Raises ConfigError or Refused, with the command that makes it so."""
    release = image.newest(workspace, config.pick_image(settings, None))
    gate.admit(release, settings, workspace)
    return release


def measure(settings: Config, workspace: Workspace, folder: Path) -> list[Row]:
    """Publish the newest image, again, and further versions; promote, roll back, verify. Nothing stays below folder.

    folder: on the file system of the build. The versions are the one image under several names, since building each
    would change nothing of what is sent. Raises what ready() and publishing do.
    """
    release = ready(settings, workspace)
    disks = sum(int(entry["size"]) for entry in release.manifest["files"])
    # A version has its packages in a tarball as well, and is copied once more to be compared.
    files.need_space(folder, 2 * (VERSIONS + 2) * disks, "benchmark")
    trial = _Trial(settings, _beside(workspace, folder), folder)
    versions = [_version(release, trial.workspace, number) for number in range(1, VERSIONS + 1)]
    try:
        return [
            *trial.first(versions[0]),
            *trial.again(versions[0]),
            *trial.checked(),
            *trial.further(versions),
            *trial.moved(versions),
        ]
    finally:
        shutil.rmtree(trial.store, ignore_errors=True)


class _Trial:
    """One store that is filled, and what was measured of it so far."""

    def __init__(self, settings: Config, workspace: Workspace, folder: Path) -> None:
        self.workspace, self.folder, self.store = workspace, folder, folder / "store"
        mine = Publish(key="throw-away", to=str(self.store), keep=VERSIONS)
        self.settings = settings.model_copy(update={"publish": mine})
        self.name = config.pick_image(settings, None)
        self.first_seconds = 0.0
        self.own = self.packages = 0

    def first(self, release: Release) -> list[Row]:
        """Publish to an empty store, and copy the same files."""
        self.first_seconds, new = self._timed("first publish", lambda: self._publish(release))
        self.own, self.packages = _bytes(new, "images/"), _bytes(new, f"{FOLDER}/pool/")
        copied = self.folder / "copied"
        plain = _seconds("cp and sha256sum", lambda: self._copied(list(new), copied))
        size = sum(p.stat().st_size for p in copied.rglob("*") if p.is_file())
        shutil.rmtree(copied)
        return [
            Row("first publish", self.first_seconds, "s", "cp and sha256sum", plain),
            Row("  sent", _sent(new), "B", "cp", size),
        ]

    def again(self, release: Release) -> list[Row]:
        """Publish what is there already."""
        seconds, new = self._timed("publish again", lambda: self._publish(release))
        return [
            Row("publish again", seconds, "s", "first publish", self.first_seconds),
            Row("  sent", _sent(new), "B", "limit", 0, limit=True),
        ]

    def checked(self) -> list[Row]:
        """Verify what is published, and do by hand what is enough for its bytes."""
        public = gpg.throw_away(self.workspace.publisher, "").public(self.folder / "public.gpg")

        def check() -> None:
            consumer.verify_release(
                self.settings, self.workspace, str(self.store), public, wanted="candidate", title=self.name
            )

        def plain() -> None:
            (folder,) = (self.store / "images" / self.name).iterdir()
            gpg.check(folder / bundle.SUMS, folder / bundle.SIGNATURE, public)
            run.run(["sha256sum", "--check", "--quiet", bundle.SUMS], name="sha256sum", cwd=folder)

        seconds, _ = self._timed("verify-release", check)
        return [Row("verify-release", seconds, "s", "sha256sum and gpgv", _seconds("sha256sum and gpgv", plain))]

    def further(self, versions: Sequence[Release]) -> list[Row]:
        """Publish the others."""
        sent, disks, all_seconds = self.own + self.packages, 1, 0.0
        name = versions[0].main.name
        for number, release in enumerate(versions[1:], 2):
            seconds, new = self._timed(f"version {number}", lambda release=release: self._publish(release))  # type: ignore[misc]
            sent, all_seconds = sent + _sent(new), all_seconds + seconds
            disks += sum(path.endswith(f"/{name}") for path in new)
        count = len(versions)
        return [
            Row("a further version", all_seconds / (count - 1), "s", "first publish", self.first_seconds),
            Row(f"{count} versions: disks sent", disks, "disks", "limit", count, limit=True),
            Row("  sent", sent, "B", f"{count} × own files, packages once", count * self.own + self.packages),
        ]

    def moved(self, versions: Sequence[Release]) -> list[Row]:
        """Promote the last two, and go back by one."""
        one, two = (str(release.manifest["version"]) for release in versions[-2:])
        acts: dict[str, Callable[[], object]] = {
            "promote": lambda: flow.promote(self.settings, self.workspace, two, channel="stable", to=None),
            "rollback": lambda: flow.rollback(self.settings, self.workspace, "stable", name=self.name, to=None),
        }
        flow.promote(self.settings, self.workspace, one, channel="stable", to=None)
        rows = []
        for name, act in acts.items():
            seconds, new = self._timed(name, act)
            rows.append(Row(name, seconds, "s", "first publish", self.first_seconds))
            rows.append(Row("  sent", _sent(new), "B", "limit", 0, limit=True))
            views = sum(size for path, size in new.items() if not _of_images(path))
            rows.append(Row("  index, log, lists", views, "B", "one version's own files", self.own))
        return rows

    def _publish(self, release: Release) -> object:
        manifest = release.folder / image.MANIFEST
        return flow.publish(self.settings, self.workspace, name=None, manifest=manifest, to=None, channel="candidate")

    def _copied(self, paths: Sequence[str], target: Path) -> None:
        """The peer: the files of the images and packages by cp, and the digest of each copy by sha256sum."""
        target.mkdir()
        mine = [path for path in paths if _of_images(path)]
        run.run(["cp", "--parents", *mine, target], name="cp", cwd=self.store)
        run.run(["sha256sum", *mine], name="sha256sum", cwd=target)

    def _timed(self, name: str, act: Callable[[], object]) -> tuple[float, dict[str, int]]:
        """The seconds that act takes, and what it writes in the store: path to size."""
        before = _seen(self.store)
        seconds = _seconds(name, act)
        return seconds, {path: facts[2] for path, facts in _seen(self.store).items() if before.get(path) != facts}


def _seconds(name: str, act: Callable[[], object]) -> float:
    log.info(f"benchmark: {name}")
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def _seen(store: Path) -> Seen:
    found = {str(p.relative_to(store)): p.stat() for p in store.rglob("*") if p.is_file()}
    return {path: (s.st_ino, s.st_mtime_ns, s.st_size) for path, s in found.items()}


def _bytes(new: Mapping[str, int], below: str) -> int:
    return sum(size for path, size in new.items() if path.startswith(below))


def _of_images(path: str) -> bool:
    return path.startswith(("images/", f"{FOLDER}/pool/"))


def _sent(new: Mapping[str, int]) -> int:
    return sum(size for path, size in new.items() if _of_images(path))


def _beside(workspace: Workspace, folder: Path) -> Workspace:
    """A workspace of the same sources and packages, with images, a key and a lock of its own."""
    found = Workspace(workspace.root, folder / "build", workspace.run_id)
    found.build.mkdir()
    for entry in workspace.build.iterdir():
        if entry.name not in _OWN:
            (found.build / entry.name).symlink_to(entry)
    return found


def _version(release: Release, workspace: Workspace, number: int) -> Release:
    """The image under another name: its disks and the proofs of them, with a manifest of another version."""
    built = datetime.fromisoformat(release.manifest["built"]) + timedelta(seconds=number)
    named = {"version": f"{release.manifest['version']}-{number}", "built": built.isoformat(timespec="seconds")}
    folder = workspace.images / named["version"]
    folder.mkdir(parents=True)
    verdict = verify.verdict_path(release.main)
    proofs = [verdict, verdict.with_suffix(".xml"), *(evidence.path(verdict, kind) for kind in evidence.KINDS)]
    for path in [*(release.folder / str(entry["name"]) for entry in release.manifest["files"]), *proofs]:
        os.link(path, folder / path.name)
    files.write_json(folder / image.MANIFEST, {**release.manifest, **named})
    return image.load(folder)


def table(rows: Sequence[Row]) -> list[str]:
    """All rows for a person, and what they are about."""
    shown: list[Sequence[str]] = [("", "measured", "ratio", "beside", "", "")]
    for row in rows:
        ratio = f"{row.value / row.other:5.2f}" if row.other else "    -"
        over = "OVER" if row.limit and row.value > row.other else ""
        shown.append((row.name, _say(row.value, row.unit), ratio, row.beside, _say(row.other, row.unit), over))
    return [
        *console.table(shown),
        "sent: bytes of files below images/ and apt/pool/ that are new in the store",
        f"The {VERSIONS} versions are one image under {VERSIONS} names, made up for this run and removed after it.",
    ]


def _say(value: float, unit: str) -> str:
    said = f"{value:.2f} s" if unit == "s" else files.human(value) if unit == "B" else f"{value:.0f} {unit}"
    return f"{said:>10}"


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """All rows as plain values."""
    return [asdict(row) for row in rows]
