"""What this host can do, and what it lacks."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from foundry import files, host, run
from foundry.config import Config
from foundry.errors import CommandFailed, FoundryError, ToolMissing
from foundry.workspace import HOST_KERNELS, MEMORY, Workspace

DISK_NEEDED = 6 * 1000**3
SPARE_MEMORY_MIB = 512
_VERSION_WORDS = {
    "packer": ("version",),
    "qemu-system-x86_64": ("--version",),
    "qemu-img": ("--version",),
    "mmdebstrap": ("--version",),
    "mke2fs": ("-V",),
    "shellcheck": ("--version",),
    "zstd": ("--version",),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ok: whether it will do. needed: whether nothing can be built without it."""

    name: str
    ok: bool
    needed: bool
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All that was looked at."""

    findings: tuple[Finding, ...]

    @property
    def missing(self) -> list[str]:
        """The names of what is needed and is not there."""
        return [f.name for f in self.findings if f.needed and not f.ok]

    def rows(self) -> list[dict[str, object]]:
        """The findings as plain values, for JSON."""
        return [asdict(f) for f in self.findings]

    def summary(self) -> list[str]:
        """A line for each finding, and one with the verdict."""
        wide = max(len(f.name) for f in self.findings)
        lines = []
        for finding in self.findings:
            mark = "ok" if finding.ok else "MISSING" if finding.needed else "no"
            advice = f"  ->  {finding.advice}" if finding.advice and not finding.ok else ""
            lines.append(f"{finding.name:<{wide}}  {mark:<7}  {finding.found}{advice}")
        return [
            *lines,
            "this host can build and verify images" if not self.missing else "this host cannot build images yet",
        ]

    def insist(self) -> None:
        """Raise FoundryError when something that is needed is missing."""
        if self.missing:
            raise FoundryError(
                f"doctor: this host lacks {', '.join(self.missing)}", hint="the advice is beside each line"
            )


def examine(cfg: Config, workspace: Workspace) -> Diagnosis:
    """Look at this host: its tools and their versions, KVM, namespaces, disk and memory. Changes nothing of it."""
    return Diagnosis(
        (
            _architecture(),
            *tools(workspace.host_packages),
            _kvm(workspace),
            _namespaces(),
            disk(workspace.build),
            memory(max(cfg.build.memory_mib, cfg.verify.memory_mib), MEMORY.read_text(encoding="ascii")),
        )
    )


def tools(listing: Path) -> Iterator[Finding]:
    """A finding for each command of requirements/host.txt."""
    for package, command in host.commands(listing):
        try:
            path = run.find(command, package)
        except ToolMissing:
            yield Finding(command, False, True, "not on PATH", f"apt-get install {package}")
            continue
        yield Finding(command, True, True, _version(command, path) or str(path))


def _version(command: str, path: Path) -> str | None:
    words = _VERSION_WORDS.get(command)
    if not words:
        return None
    output = run.run([path, *words], name=f"version-{command}", check=False, on_line=None, timeout=20).output
    found = re.search(r"\d+\.\d+[\w.+~-]*", output)
    return found[0] if found else None


def _architecture() -> Finding:
    machine = platform.machine()
    return Finding("architecture", machine == "x86_64", True, machine, "images are built for amd64, on amd64")


def _kvm(workspace: Workspace) -> Finding:
    from foundry.machine import kvm

    kernels = [*workspace.stage("base").glob("*/vmlinuz*"), *HOST_KERNELS.glob("vmlinuz-*")]
    if not kernels:
        text = "not tried: no kernel at hand (build-image tries it with the image's own)"
        return Finding("KVM", False, False, text)
    try:
        probe = kvm.probe(max(kernels, key=lambda p: p.stat().st_mtime), None, workspace)
    except ToolMissing as error:
        return Finding("KVM", False, False, error.brief)
    return Finding("KVM", probe.usable, False, probe.reason, "TCG is used instead: the same result, slower")


def _namespaces() -> Finding:
    try:
        run.run(run.contained(["true"]), name="namespaces", what="unshare")
    except (CommandFailed, ToolMissing) as error:
        advice = "run ./inv as root: chroots and the ownership of their files need it"
        return Finding("namespaces", False, True, error.details or error.brief, advice)
    return Finding("namespaces", True, True, "pid and mount namespaces")


def disk(build: Path) -> Finding:
    """Whether the file system of the build folder has the space that one build takes."""
    there = next(p for p in (build, *build.parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    advice = f"free {files.human(DISK_NEEDED)}, or set FOUNDRY_BUILD to a folder on a larger disk"
    return Finding("disk", free >= DISK_NEEDED, True, f"{files.human(free)} free for {build}", advice)


def memory(guest_mib: int, meminfo: str) -> Finding:
    """Whether a guest of guest_mib fits into what meminfo, the text of the kernel's own account, says is available."""
    match = re.search(r"^MemAvailable: +(\d+) kB", meminfo, re.MULTILINE)
    available = int(match[1]) // 1024 if match else 0
    needed = guest_mib + SPARE_MEMORY_MIB
    advice = f"a build takes {needed} MiB: lower build.memory_mib and verify.memory_mib in foundry.yml"
    return Finding("memory", available >= needed, True, f"{available} MiB available", advice)
