"""The pipeline: which stage follows which. Everything that a task of the command line does in one call."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foundry import (
    archive,
    base,
    config,
    deb,
    files,
    golden,
    host,
    image,
    lock,
    log,
    rebuild,
    recorded,
    run,
    stages,
    threads,
    verify,
)
from foundry.config import Config
from foundry.errors import CorruptArtifact, ToolMissing
from foundry.machine import kvm
from foundry.workspace import Workspace

# The order of the flow; stages that run side by side begin in any.
FLOW = (
    "recorded",
    "archive",
    "chroot",
    "patroni-venv",
    "patroni-node",
    "bootstrap",
    "base",
    "packer",
    "images",
    "verify",
)


@dataclass(frozen=True)
class Built:
    """What build_image and verify_image end with."""

    release: image.Release
    verdict: verify.Verdict | None
    comparison: rebuild.Comparison | None = None

    def summary(self) -> list[str]:
        """Lines for a person: seconds for each stage, what was rebuilt, verdict, image, size, sha256."""
        records = sorted(log.records(), key=lambda r: FLOW.index(r.name))
        seconds = ", ".join(f"{r.name} {_seconds(r)}" for r in records)
        entry = self.release.manifest["files"][0]
        return [
            f"stages   {seconds}",
            *(self.comparison.summary() if self.comparison else []),
            f"verdict  {_verdict_line(self.verdict)}",
            f"image    {self.release.main}",
            f"size     {files.human(entry['size'])}",
            f"sha256   {entry['sha256']}",
        ]


@dataclass(frozen=True)
class BuiltDebs:
    """What build_deb ends with."""

    folder: Path
    debs: Sequence[Path]

    def summary(self) -> list[str]:
        """Lines for a person: each package with its size and sha256."""
        return [
            *(f"{p.name}  {files.human(p.stat().st_size)}  sha256 {files.sha256(p)}" for p in self.debs),
            f"in       {self.folder}",
            "install  apt install ./*.deb   (in that folder, on a Debian 12)",
        ]


def build_image(
    settings: Config, workspace: Workspace, *, image: str | None = None, verify: bool = True, offline: bool = False
) -> Built:
    """From foundry.yml to a golden image and, unless verify is False, a passing verdict on it.

    offline: use what was fetched before instead of asking Debian's archive for what is newest.
    Raises a FoundryError, which says what to do; nothing half made is left behind.
    """
    name = config.pick_image(settings, image)
    with _alone(workspace):
        release = _release(name, settings, workspace, offline=offline)
        verdict = _verified(release, settings, workspace, anew=False) if verify else None
    return Built(release, verdict)


def rebuild_image(
    found: recorded.Recorded, workspace: Workspace, *, verify: bool = True, offline: bool = False
) -> Built:
    """Build a version again from what its manifest records, compare the two, and prove the new one unless told not to.

    offline: take only what is in the pool. The comparison is kept beside the image (rebuild.json).
    Raises a FoundryError: NotReproduced where something differs that must be equal.
    """
    with _alone(workspace):
        pinned = rebuild.prepare(found, workspace, offline=offline)
        release = _release(found.manifest.name, found.config, workspace, pinned=pinned)
        comparison = rebuild.compare(found, release, workspace)
        comparison.write(release.folder, found)
        comparison.insist(release.folder)
        verdict = _verified(release, found.config, workspace, anew=False) if verify else None
    return Built(release, verdict, comparison)


def build_deb(settings: Config, workspace: Workspace, *, image: str | None = None, offline: bool = False) -> BuiltDebs:
    """Build the packages for an image's suite, and put them with Consul's into build/deb/. Raises a FoundryError."""
    chosen = settings.images[config.pick_image(settings, image)]
    with _alone(workspace):
        packages = archive.build(settings, chosen, workspace, offline=offline)
        debs = deb.build(packages, chosen.suite, workspace)
        target = workspace.stage("deb")
        with files.whole_folder(target) as scratch:
            for path in debs.all():
                shutil.copyfile(path, scratch / path.name)
    return BuiltDebs(target, [target / p.name for p in debs.all()])


def verify_image(
    settings: Config, workspace: Workspace, *, image: str | None = None, manifest: Path | None = None
) -> Built:
    """Boot the newest build of an image, or the one of a manifest, and judge it anew. Raises VerifyError and others."""
    with _alone(workspace):
        release = _given(workspace, manifest) if manifest else _newest(settings, workspace, image)
        return Built(release, _verified(release, settings, workspace, anew=True))


def _given(workspace: Workspace, manifest: Path) -> image.Release:
    path = workspace.root / manifest
    return image.load(path if path.is_dir() else path.parent)


def _newest(settings: Config, workspace: Workspace, name: str | None) -> image.Release:
    return image.newest(workspace, config.pick_image(settings, name))


def _release(
    name: str,
    settings: Config,
    workspace: Workspace,
    *,
    offline: bool = False,
    pinned: archive.Pinned | None = None,
) -> image.Release:
    chosen = settings.images[name]
    packages = archive.build(settings, chosen, workspace, offline=offline, pinned=pinned)
    built: Future[Path] = Future()

    def our_packages() -> deb.Debs:
        try:
            return deb.build(packages, chosen.suite, workspace, venv_is_built=built.set_result)
        except BaseException as error:
            if not built.done():
                built.set_exception(error)
            raise

    venv = base.Venv(deb.venv_key(packages, workspace), built.result)
    debs, ground, _ = threads.together(
        our_packages,
        lambda: base.build(settings, chosen, packages, venv, workspace),
        lambda: _probe(packages, settings, workspace),
    )
    sealed = golden.build(settings, chosen, ground, debs, workspace)
    return image.build(name, settings, image.Parts(packages, debs, ground, sealed), workspace)


def _probe(packages: archive.Archive, settings: Config, workspace: Workspace) -> None:
    """Try KVM while others work: where it hangs its guests, finding that out takes ten seconds. The answer is kept."""
    if settings.build.accelerator == "tcg" or kvm.remembered(workspace):
        return
    with tempfile.TemporaryDirectory(dir=_made(workspace.work), prefix="probe.") as folder:
        kvm.probe(archive.kernel(packages, Path(folder) / "vmlinuz"), None, workspace)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _verified(release: image.Release, settings: Config, workspace: Workspace, *, anew: bool) -> verify.Verdict:
    path = verify.verdict_path(release.main)
    if files.sha256(release.main) != release.digest:
        (release.folder / stages.RECORD).unlink(missing_ok=True)
        raise CorruptArtifact(
            f"image: {release.main} is not the file that its manifest describes",
            hint="`./inv build-image` makes it anew",
        )
    if not anew and verify.refusal(path, release.digest, workspace, settings.verify.max_age_days) is None:
        known = verify.load(path)
        assert known is not None
        log.reused("verify", f"these very bytes passed this very suite at {known.ended}")
        return known
    wishes = verify.Settings(
        accelerator=settings.build.accelerator,
        format=release.main.suffix.lstrip("."),
        cpus=settings.verify.cpus,
        memory_mib=settings.verify.memory_mib,
        boot_seconds=settings.verify.boot_timeout_s,
    )
    with log.stage("verify", "asked for" if anew else "no passing verdict on these bytes yet"):
        return verify.verify(release.main, release.manifest, wishes, workspace)


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """Keep other runs out of the build folder, and clear what a killed one left half made."""
    if os.geteuid() != 0:
        raise ToolMissing("building needs root: chroots and file ownership", hint="sudo ./inv …")
    for package, command in host.commands(workspace.host_packages):
        run.find(command, package)
    # A user's own umask would become the mode of folders in the image.
    umask = os.umask(0o022)
    try:
        with lock.held(workspace, "wait for it, or set FOUNDRY_BUILD to another folder"):
            for leftover in [*workspace.build.glob("*/.*.*"), *workspace.work.glob("*")]:
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
            yield
    finally:
        os.umask(umask)


def _seconds(record: log.StageRecord) -> str:
    return "reused" if record.outcome == "reused" else f"{record.seconds:.1f} s"


def _verdict_line(verdict: verify.Verdict | None) -> str:
    if verdict is None:
        return "none (--no-verify): this image must not be published"
    passed = sum(o.outcome == "passed" for o in verdict.outcomes)
    return f"{passed} of {len(verdict.outcomes)} checks passed under {verdict.accelerator} in {verdict.seconds:.0f} s"
