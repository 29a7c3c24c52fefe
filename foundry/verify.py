"""The gate: boot an overlay of an image's exact bytes as a new node, run tests/image, write down a verdict."""

from __future__ import annotations

import contextvars
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import yaml

from foundry import evidence, files, log, residue, run, tree
from foundry.errors import CommandFailed, CorruptArtifact, FoundryError, GuestError, VerifyError
from foundry.machine import MAKERS, Accelerator, Firmware, Machine, Spec, kvm, ssh
from foundry.machine.seed import NodeSeed, StaticAddress
from foundry.machine.vm import DEFAULT_MAC
from foundry.workspace import HOST_CPUS, Workspace

# Larger than the image's, as on a cloud: the root file system has to grow, and WAL gets room for its size.
DISK_GIB = 24
PHASES = ("booted", "rebooted")
"""The suite's two parts, by pytest marker: tests of the first boot, and those marked `rebooted`."""


@dataclass(frozen=True)
class Settings:
    """How to verify. memory_mib: MiB. boot_seconds, suite_seconds: bounds on each boot and on each run of the suite."""

    accelerator: kvm.Choice = "auto"
    firmware: Firmware = "bios"
    format: str = "qcow2"
    user: str = "debian"
    cpus: int = 2
    memory_mib: int = 4096
    boot_seconds: float = 420.0
    suite_seconds: float = 600.0


@dataclass(frozen=True)
class Outcome:
    """What became of one test: outcome is passed, failed, error, skipped, xfailed or xpassed; wall seconds."""

    name: str
    phase: str
    outcome: str
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is known about one image after it was booted. image and suite: sha256. started, ended: UTC, ISO 8601.

    evidence: the sha256 of each file that was kept beside it (foundry/evidence.py), by its kind.
    """

    image: str
    file: str
    suite: str
    machine: Literal["vm"]
    firmware: Firmware
    accelerator: Accelerator
    host: Mapping[str, str]
    started: str
    ended: str
    boot_seconds: float
    reboot_seconds: float | None
    seconds: float
    outcomes: tuple[Outcome, ...] = field(default=())
    evidence: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Outcome]:
        """Every outcome but "passed"."""
        return [o for o in self.outcomes if o.outcome != "passed"]

    @property
    def passed(self) -> bool:
        """Whether every test passed, and each phase had at least one. A skipped test has not passed."""
        return not self.failed and {o.phase for o in self.outcomes} == set(PHASES)


def verdict_path(image: Path, firmware: Firmware = "bios") -> Path:
    """Where the verdict on an image lies: beside it; its JUnit report has the suffix .xml instead of .json."""
    return image.with_name(f"{image.name}.verdict-{firmware}.json")


def suite_digest(workspace: Workspace) -> str:
    """The sha256 of the test suite that decides: names, modes and contents of tests/image."""
    suite = workspace.image_suite
    return files.sha256_text(files.canonical(files.tree_digests([suite], suite)))


def load(path: Path) -> Verdict | None:
    """The verdict in a file; None where there is none or it cannot be read as one."""
    value = files.read_json(path)
    try:
        outcomes = tuple(Outcome(**o) for o in value["outcomes"])
        datetime.fromisoformat(value["ended"])
        kept = dict(value.get("evidence", {}))
        rest = {k: v for k, v in value.items() if k not in ("passed", "outcomes", "evidence")}
        return Verdict(**rest, outcomes=outcomes, evidence=kept)
    except (TypeError, KeyError, AttributeError, ValueError):
        return None


def refusal(path: Path, image_sha256: str, workspace: Workspace, max_age_days: int) -> str | None:
    """Why the verdict in path does not let an image with this digest be published, or None when it does.

    max_age_days: how old it may be; a verdict is also about Debian's archive of its day.
    """
    verdict = load(path)
    if verdict is None:
        return f"there is no verdict in {path.name}"
    if verdict.image != image_sha256:
        return f"{path.name} is about another image (sha256 {verdict.image[:12]}…)"
    if verdict.suite != suite_digest(workspace):
        return f"{path.name} is of another test suite than tests/image is now"
    age = datetime.now(UTC) - datetime.fromisoformat(verdict.ended)
    if age > timedelta(days=max_age_days):
        return f"{path.name} is {age.days} days old, and verify.max_age_days is {max_age_days}"
    if not verdict.passed:
        return f"{path.name} says that {_count(verdict.failed) or 'no test ran'}"
    return evidence.refusal(path, verdict.evidence)


def verify(image: Path, manifest: Mapping[str, Any], settings: Settings, workspace: Workspace) -> Verdict:
    """Boot image in a virtual machine and judge it; verdict and evidence are written beside it, passed or not.

    manifest: the image's, handed to the tests. Logs lie below workspace.logs, and in build/failed/ as well if it fails.
    Raises VerifyError when a test did not pass, GuestError when the guest did not come up, CorruptArtifact when the
    image's bytes are not what the manifest says or changed meanwhile.
    """
    target = verdict_path(image, settings.firmware)
    evidence.remove(target)
    trial = _Trial(image, manifest, settings, workspace)
    try:
        verdict = trial.run()
    except BaseException:
        # The verdict is written last: without it, what lies there belongs to nothing.
        if not target.exists():
            evidence.remove(target)
        trial.keep_failed()
        raise
    finally:
        trial.clean()
    return verdict


class _Trial:
    """One verification under way."""

    def __init__(self, image: Path, manifest: Mapping[str, Any], settings: Settings, workspace: Workspace) -> None:
        token = secrets.token_hex(3)
        self.image, self.manifest, self.settings, self.workspace = image, manifest, settings, workspace
        self.folder = workspace.work / f"verify-{token}"
        self.logs = workspace.logs / f"verify-{settings.firmware}"
        self.pristine = self.folder / "pristine"
        network = f"10.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}"
        self.cidr = f"{network}.{secrets.randbelow(200) + 30}/24"
        self.gateway, self.network = f"{network}.2", f"{network}.0/24"
        # Apart from the host name, so that a name taken from the wrong place is noticed.
        self.name, self.hostname, self.cluster = f"pg-{token}", f"vm-{token}", f"cluster-{token}"
        self.secret = secrets.token_urlsafe(24)
        self.residue: list[str] = []
        self.boots: list[evidence.Boot] = []
        self.console: Path | None = None
        self.begin = time.monotonic()
        self.started = _now()

    def run(self) -> Verdict:
        before = files.sha256(self.image)
        recorded = recorded_digest(self.manifest, self.image)
        if recorded and recorded != before:
            raise CorruptArtifact(f"{self.image} is not what its manifest says", hint="build the image again")
        self.folder.mkdir(parents=True, mode=0o700)
        self.logs.mkdir(parents=True, exist_ok=True)
        disk, accelerator = self._open_image()
        maker = MAKERS["vm"]
        # The machine ends with the thread that boots it, so that is this one.
        with ThreadPoolExecutor(1) as reader, maker(self._spec(accelerator), self.workspace) as machine:
            reading = reader.submit(contextvars.copy_context().run, self._read_image, disk)
            try:
                boot, reboot, outcomes = self._examine(machine, reading)
            except GuestError as error:
                # The machine's own folder will be gone by the time somebody looks.
                error.log = self.logs
                raise
            finally:
                with suppress(FoundryError):
                    kept = machine.collect_logs(self.logs)
                    self.console = next((p for p in kept if p.name.endswith("console.log")), None)
        if files.sha256(self.image) != before:
            raise CorruptArtifact(f"{self.image} changed while it was verified")
        return self._conclude(before, accelerator, boot, reboot, outcomes)

    def _open_image(self) -> tuple[Path, Accelerator]:
        log.activity("opening the image")
        disk = tree.raw(self.image, self.settings.format, self.folder / "disk.raw")
        kernel, initrd = tree.boot_files(disk, self.folder / "boot")
        return disk, kvm.accelerator(self.settings.accelerator, kernel, initrd, self.workspace)

    def _read_image(self, disk: Path) -> None:
        """What needs no guest, while it boots: the files of the image, and the search of its disk for secrets."""
        tree.dump(disk, "/", self.pristine)
        tree.confine(self.pristine)
        self.residue = residue.search(disk, self.pristine)
        disk.unlink()

    def _spec(self, accelerator: Accelerator) -> Spec:
        private, public = ssh.key_pair(self.folder / "keys")
        settings = self.settings
        node = {
            "cluster": self.cluster,
            "name": self.name,
            "address": self.cidr.partition("/")[0],
            "networks": [self.network],
            "secrets": {"key": self.secret},
        }
        static = StaticAddress(self.cidr, (("macaddress", DEFAULT_MAC),), self.gateway)
        text = yaml.safe_dump(node, sort_keys=False)
        seed = NodeSeed(f"i-{secrets.token_hex(6)}", self.hostname, text, public, static)
        return Spec(
            name=self.name,
            image=self.image,
            seed=seed,
            folder=self.folder / "vm",
            private_key=private,
            format=settings.format,
            user=settings.user,
            cpus=settings.cpus,
            memory_mib=settings.memory_mib,
            disk_gib=DISK_GIB,
            firmware=settings.firmware,
            accelerator=accelerator,
        )

    def _examine(self, machine: Machine, reading: Future[None]) -> tuple[float, float | None, list[Outcome]]:
        log.activity("booting, and reading the disk meanwhile")
        machine.boot()
        boot = machine.wait_ready(self.settings.boot_seconds)
        log.info(f"{self.name} was up after {boot:.0f} s")
        reading.result()
        self._describe(machine)
        outcomes = self._suite(machine, PHASES[0], "not rebooted")
        if any(o.outcome != "passed" for o in outcomes):
            return boot, None, outcomes
        reboot = machine.reboot(self.settings.boot_seconds)
        return boot, reboot, outcomes + self._suite(machine, PHASES[1], "rebooted")

    def _describe(self, machine: Machine) -> None:
        facts = {
            "name": self.name,
            "hostname": self.hostname,
            "cluster": self.cluster,
            "address": self.cidr.partition("/")[0],
            "network": self.network,
            "instance_id": machine.spec.seed.instance_id,
            "user": machine.spec.user,
            "secret": self.secret,
            "pristine": str(self.pristine),
            "residue": self.residue,
            "memory_mib": self.settings.memory_mib,
            "cpus": self.settings.cpus,
            "before_reboot": str(self.folder / "before-reboot.json"),
            "manifest": dict(self.manifest),
        }
        files.write(self.folder / "node.json", files.canonical(facts), mode=0o600)

    def _suite(self, machine: Machine, phase: str, marker: str) -> list[Outcome]:
        suite, report = self.workspace.image_suite, self.folder / f"{phase}.json"
        self.boots.append(evidence.boot(machine, phase))
        words: list[str | Path] = [sys.executable, "-m", "pytest", "-c", suite / "pytest.ini", "-m", marker, suite]
        words += ["-v", "--tb=short", "--color=no", "-p", "no:cacheprovider", "-p", "testinfra.plugin"]
        words += [f"--hosts=ssh://{ssh.HOST}", f"--ssh-config={machine.ssh_config}"]
        words += [f"--node={self.folder / 'node.json'}", f"--outcomes={report}"]
        words.append(f"--junitxml={self.logs / f'{phase}.xml'}")
        # Only what the suite asks for decides, not a plugin that happens to be installed here.
        env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        name, bound = f"pytest-{phase}", self.settings.suite_seconds
        result = run.run(words, name=name, env=env, cwd=self.folder, check=False, timeout=bound, what="tests/image")
        found = files.read_json(report)
        if not isinstance(found, list) or result.returncode not in (0, 1):
            tail = "\n".join(result.output.splitlines()[-6:])
            brief = f"tests/image could not be run on {self.image.name}: pytest exited {result.returncode}"
            raise VerifyError(brief, details=f"last output: {tail}", log=result.log)
        outcomes = [Outcome(phase=phase, **o) for o in found]
        if result.returncode != 0 and all(o.outcome == "passed" for o in outcomes):
            outcomes.append(Outcome("pytest", phase, "error", 0.0, f"exited {result.returncode}"))
        self.boots[-1] = replace(self.boots[-1], milestones=evidence.milestones(machine))
        return outcomes

    def _conclude(
        self, digest: str, accelerator: Accelerator, boot: float, reboot: float | None, outcomes: list[Outcome]
    ) -> Verdict:
        target = verdict_path(self.image, self.settings.firmware)
        kept = evidence.write(target, self.console, self.boots, self.secret)
        verdict = Verdict(
            image=digest,
            file=self.image.name,
            suite=suite_digest(self.workspace),
            machine="vm",
            firmware=self.settings.firmware,
            accelerator=accelerator,
            host=host_description(),
            started=self.started,
            ended=_now(),
            boot_seconds=round(boot, 1),
            reboot_seconds=None if reboot is None else round(reboot, 1),
            seconds=round(time.monotonic() - self.begin, 1),
            outcomes=tuple(outcomes),
            evidence=kept,
        )
        _merge_junit([self.logs / f"{phase}.xml" for phase in PHASES], target.with_suffix(".xml"))
        files.write_json(target, {**asdict(verdict), "passed": verdict.passed})
        if not verdict.passed:
            raise VerifyError(
                f"{self.image.name} did not pass: {_count(verdict.failed) or 'no test ran'}",
                details="\n".join(f"{o.outcome}  {o.name}  {_first_line(o.message)}".rstrip() for o in verdict.failed),
                log=self.logs,
                hint=f"the logs are kept in {self._failed_folder} too",
            )
        return verdict

    @property
    def _failed_folder(self) -> Path:
        return self.workspace.failed / self.image.stem

    def keep_failed(self) -> None:
        """Copy the logs to build/failed/, in place of those of an earlier failure."""
        with suppress(OSError):
            shutil.rmtree(self._failed_folder, ignore_errors=True)
            shutil.copytree(self.workspace.logs, self._failed_folder)

    def clean(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def recorded_digest(manifest: Mapping[str, Any], image: Path) -> str | None:
    """The sha256 that a manifest records for an image's file name, or None."""
    for entry in manifest.get("files", []):
        if isinstance(entry, Mapping) and entry.get("name") == image.name:
            return str(entry["sha256"])
    return None


def host_description() -> dict[str, str]:
    """What this host is, as far as it bears on a verdict; nothing that names it."""
    text = HOST_CPUS.read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    version = "unknown"
    with suppress(CommandFailed):
        version = run.capture(["qemu-system-x86_64", "--version"], name="qemu-version").splitlines()[0]
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": str(len(re.findall(r"^processor\s*:", text, re.MULTILINE))),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "qemu": version,
    }


def _merge_junit(parts: list[Path], target: Path) -> None:
    whole = ElementTree.Element("testsuites")
    for part in parts:
        if part.exists():
            for suite in ElementTree.parse(part).getroot().iter("testsuite"):  # noqa: S314 - our own pytest wrote it
                suite.set("name", f"image.{part.stem}")
                suite.attrib.pop("hostname", None)
                whole.append(suite)
    files.write(target, ElementTree.tostring(whole, encoding="unicode") + "\n")


def _count(outcomes: list[Outcome]) -> str:
    kinds = sorted({o.outcome for o in outcomes})
    return ", ".join(f"{sum(o.outcome == kind for o in outcomes)} {kind}" for kind in kinds)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:160] if text.strip() else ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
