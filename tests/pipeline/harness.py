"""`./inv` under way as a user would run it, and the search for what it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from foundry import files
from foundry.errors import FoundryError
from foundry.workspace import CGROUPS, NAMESPACES

ROOT = Path(__file__).parents[2]
STAGES = ("archive", "chroot", "patroni-venv", "patroni-node", "bootstrap", "base", "packer", "images")
TEMPORARY = Path("/tmp")
DOWNLOADS = ("pool", "resolver", "wheels", "keyring", "host")


def until(check: Callable[[], tuple[bool, object]], what: str, seconds: float) -> object:
    """Ask check until it says (True, value), and return that value; fails with the last one after seconds."""
    deadline = time.monotonic() + seconds
    while True:
        done, last = check()
        if done:
            return last
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s; the last value was: {last}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Ended:
    """How a run of ./inv ended."""

    code: int
    out: str
    err: str

    def expect(self, code: int) -> Self:
        assert self.code == code, f"exit code {self.code}, not {code}\n{self.err}\n{self.out}"
        assert "Traceback" not in self.err, self.err
        return self

    def refused(self, code: int, *words: str) -> str:
        """The whole message of a run that must have ended with one error that has all these words."""
        self.expect(code)
        lines = self.err.splitlines()
        begins = [n for n, line in enumerate(lines) if line.startswith("error:")]
        assert len(begins) == 1, self.err
        message = "\n".join(lines[begins[0] :])
        for word in words:
            assert word in message, f"{word!r} is not in:\n{message}"
        return message

    def stage(self, name: str) -> str:
        """What the plain lines say of a stage, without the time of day: "reused: no input changed"."""
        lines = [line[9:] for line in self.err.splitlines()]
        return "\n".join(line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: "))


class Inv:
    """A run of ./inv with a build folder of its own; leaving the block ends it.

    within: a command that runs it. env: on top of the user's own. program: in place of ./inv.
    """

    def __init__(
        self,
        build: Path,
        *words: str,
        within: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = (str(ROOT / "inv"),),
        cwd: Path = ROOT,
    ) -> None:
        self.build = build
        self._out, self._err = (os.memfd_create(name) for name in ("out", "err"))
        self.process = subprocess.Popen(
            # Should pytest be killed, so is this.
            ["setpriv", "--pdeathsig", "KILL", "--", *within, *program, *words],
            cwd=cwd,
            env={**os.environ, "FOUNDRY_BUILD": str(build), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._out)
        os.close(self._err)

    @property
    def said(self) -> str:
        return os.pread(self._err, 1 << 24, 0).decode()

    def reaches(self, moment: Callable[[], tuple[bool, object]], what: str, seconds: float) -> None:
        """Wait for a moment of this run; fails at once when the run ends before it."""

        def check() -> tuple[bool, object]:
            assert self.process.poll() is None, f"it ended before {what}:\n{self.said}"
            done, value = moment()
            return done, f"{value}\n{self.said}"

        until(check, what, seconds)

    def end(self, seconds: float = 60, number: signal.Signals | None = None) -> Ended:
        """Send a signal, if any, and wait for the end."""
        if number:
            self.process.send_signal(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs still after {seconds:.0f} s:\n{self.said}") from None
        out = os.pread(self._out, 1 << 24, 0).decode()
        return Ended(self.process.returncode, out, self.said)


def inv(build: Path, *words: str, seconds: float = 60, **options: object) -> Ended:
    """Run ./inv to its end, which must come within seconds; options: of Inv."""
    with Inv(build, *words, **options) as run:  # type: ignore[arg-type]
        return run.end(seconds)


def tell_all(report: pytest.TestReport, error: BaseException | None) -> None:
    """Show what else an error of ours knows: the last value seen, the console's last lines, its log."""
    if isinstance(error, FoundryError):
        known = (error.details, error.log and f"log: {error.log}", error.hint and f"hint: {error.hint}")
        report.sections.append(("details", "\n".join(text for text in known if text)))


def copy(source: Path, target: Path, names: Sequence[str]) -> Path:
    """Make target a build folder with these folders of source.

    The files are links: a test may replace one, and never writes to it.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (source / name).is_dir():
            continue
        # gpg writes to its files in place, and a lock on a linked file would be one on the original.
        flags = "-rp" if name in ("keyring", "host") else "-rpPl"
        (target / name).mkdir(exist_ok=True)
        members = [str(p) for p in (source / name).iterdir() if not p.is_socket() and p.name != "lock"]
        if members:
            subprocess.run(["cp", flags, "-t", str(target / name), *members], check=True)
        for lock in (target / name).rglob("lock") if name in DOWNLOADS else []:
            lock.unlink()
    return target


def results(build: Path) -> set[str]:
    """The results of stages that a next run could use."""
    return {str(p.relative_to(build)) for p in build.glob("*/*/stage.json")}


def half_made(build: Path) -> list[str]:
    """Scratch folders and partial downloads."""
    found = [*build.glob("*/.*.*"), *build.glob("*/*.partial"), *build.glob("work/*")]
    return [str(p.relative_to(build)) for p in found if not p.is_socket()]


def leftovers(build: Path, keepers: Iterable[int] = ()) -> list[str]:
    """Processes, mounts, loop devices and labs' networks that belong to a build folder.

    keepers: processes that have kept a lab of it, beside those that run or have left their state.
    """
    found = [f"process {pid}: {what}" for pid, what in processes_of(build)]
    for pid in {*keepers, *keepers_of(build)}:
        found += [f"namespace {path}" for path in NAMESPACES.glob(f"pf-{pid}-*")]
        found += [f"control group {path}" for path in _control_groups(f"pf-{pid}-")]
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        point = line.split()[4].replace("\\040", " ")
        if point.startswith(f"{build}/"):
            found.append(f"mount {point}")
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if str(build) in backing.read_text(encoding="utf-8"):
                found.append(f"loop device {backing}")
    return found


def _control_groups(prefix: str) -> list[Path]:
    """Those whose names begin so; os.walk passes by what vanishes meanwhile."""
    return [Path(folder, name) for folder, names, _ in os.walk(CGROUPS) for name in names if name.startswith(prefix)]


def keepers_of(build: Path) -> set[int]:
    """The processes that keep a lab of a build folder, and those that have been killed while they did."""
    found = {pid for pid, words in processes_of(build) if " foundry.lab.keeper " in words}
    for state in build.glob("labs/*/state.json"):
        found.add((files.read_json(state) or {"pid": 0})["pid"])
    return found


def processes_of(build: Path) -> list[tuple[int, str]]:
    """Number and words of each process that works in a build folder, or with it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            links = (str((folder / name).readlink()) for name in ("cwd", "root", "exe"))
            if str(build) in words or any(str(build) in link for link in links):
                found.append((int(folder.name), words[:200]))
    return found


def gone(build: Path, seconds: float = 10, keepers: Iterable[int] = ()) -> None:
    """Wait until nothing that belongs to a build folder runs or is mounted any more; keepers: see leftovers."""

    def check() -> tuple[bool, object]:
        found = leftovers(build, keepers)
        return not found, found

    until(check, "everything of it has ended", seconds)


def log_says(build: Path, name: str, text: str) -> Callable[[], tuple[bool, object]]:
    """Whether the newest log of that name has text, for Inv.reaches."""

    def look() -> tuple[bool, object]:
        found = sorted(build.glob(f"logs/*/{name}"), key=lambda p: p.stat().st_mtime)
        said = found[-1].read_text("utf-8", "replace") if found else ""
        return text in said.partition("\n")[2], said[-300:]

    return look


def guest_runs(build: Path, machine: str) -> Callable[[], tuple[bool, object]]:
    """Whether a machine of a build folder runs, for Inv.reaches; machine: "vm" or "container"."""
    words = {"vm": "qemu-system-x86_64 -", "container": "systemd-nspawn --quiet"}[machine]

    def look() -> tuple[bool, object]:
        # Not all that leftovers() looks for: this is asked twenty times a second, beside the run itself.
        found = [what for _, what in processes_of(build)]
        return any(words in what for what in found), found

    return look


def temporaries() -> set[Path]:
    """What a build and its tools have left in /tmp; not what another process that runs has there."""
    ours = (p for p in TEMPORARY.glob("pf-*") if not Path("/proc", p.name.split("-")[1]).exists())
    return {*ours, *(p for pattern in ("mmdebstrap*", "packer*") for p in TEMPORARY.glob(pattern))}


def nothing_stays(before: set[Path]) -> None:
    """Check that what came to /tmp since before goes again: what another process of the tests has there does."""
    came = temporaries() - before

    def look() -> tuple[bool, object]:
        left = came & temporaries()
        return not left, left

    until(look, "nothing is left in /tmp", 120)
