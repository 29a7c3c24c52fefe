from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from foundry import evidence, files, run, tree, verify
from foundry.errors import CorruptArtifact, GuestError, VerifyError
from foundry.machine import MAKERS, Spec, kvm, ssh
from foundry.verify import Outcome, Verdict
from foundry.workspace import Workspace
from tests.unit.test_evidence import JOURNAL, SHOWN

PASSED = (Outcome("a", "booted", "passed", 1.0), Outcome("b", "rebooted", "passed", 1.0))
SUITE = Path(__file__).parents[1] / "image"


NOW = datetime.now(UTC).isoformat(timespec="seconds")


def verdict(*outcomes: Outcome) -> Verdict:
    return Verdict("i" * 64, "x.qcow2", "s" * 64, "vm", "bios", "tcg", {}, NOW, NOW, 1.0, 1.0, 2.0, outcomes)


def test_all_passed_is_passed() -> None:
    assert verdict(*PASSED).passed


@pytest.mark.parametrize("outcome", ["failed", "error", "skipped", "xfailed", "xpassed", ""])
def test_anything_else_is_not_passed(outcome: str) -> None:
    assert not verdict(*PASSED, Outcome("c", "booted", outcome, 0.0)).passed


@pytest.mark.parametrize("outcomes", [(), PASSED[:1], PASSED[1:]])
def test_a_phase_without_a_test_is_not_passed(outcomes: tuple[Outcome, ...]) -> None:
    assert not verdict(*outcomes).passed


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path, tmp_path / "build", "run")
    files.write(found.image_suite / "test_x.py", "def test(): pass\n")
    run.keep_logs_in(found.logs)
    return found


@pytest.fixture
def recorded(workspace: Workspace, tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "v.json"
        for kind in evidence.KINDS:
            files.write(evidence.path(path, kind), kind)
        kept = {kind: files.sha256(evidence.path(path, kind)) for kind in evidence.KINDS}
        value = replace(verdict(*PASSED), **{"suite": verify.suite_digest(workspace), "evidence": kept, **changes})
        files.write_json(path, {**asdict(value), "passed": True})
        return path

    return write


def test_a_verdict_lets_its_image_pass(recorded: Callable[..., Path], workspace: Workspace) -> None:
    path = recorded()
    assert verify.refusal(path, "i" * 64, workspace, 30) is None
    found = verify.load(path)
    assert found is not None and found.evidence
    assert replace(found, evidence={}) == replace(verdict(*PASSED), suite=verify.suite_digest(workspace))


@pytest.mark.parametrize(
    ("ended", "reason"), [("2026-01-02T03:04:05+00:00", "days old"), ("yesterday", "no verdict"), ("", "no verdict")]
)
def test_an_old_or_undated_verdict_does_not_count(
    recorded: Callable[..., Path], workspace: Workspace, ended: str, reason: str
) -> None:
    assert reason in str(verify.refusal(recorded(ended=ended), "i" * 64, workspace, 30))


def test_refusals_name_their_reason(recorded: Callable[..., Path], workspace: Workspace, tmp_path: Path) -> None:
    assert "no verdict" in str(verify.refusal(tmp_path / "none.json", "i" * 64, workspace, 30))
    path = recorded()
    assert "another image" in str(verify.refusal(path, "j" * 64, workspace, 30))
    # The flag in the file is for people; what counts is every outcome.
    path = recorded(outcomes=(*PASSED, Outcome("c", "booted", "skipped", 0.0)))
    assert "1 skipped" in str(verify.refusal(path, "i" * 64, workspace, 30))
    path = recorded(outcomes=())
    assert "no test ran" in str(verify.refusal(path, "i" * 64, workspace, 30))
    path = recorded()
    files.write(workspace.image_suite / "test_x.py", "def test(): assert True\n")
    assert "another test suite" in str(verify.refusal(path, "i" * 64, workspace, 30))
    path.write_text('{"image": 1}')
    assert "no verdict" in str(verify.refusal(path, "i" * 64, workspace, 30))


def test_a_verdict_without_its_evidence_does_not_count(recorded: Callable[..., Path], workspace: Workspace) -> None:
    def reason(path: Path) -> str:
        return str(verify.refusal(path, "i" * 64, workspace, 30))

    assert reason(recorded(evidence={})) == "v.json was made without v.console.log"
    path = recorded()
    evidence.path(path, "boot.json").write_text("another")
    assert reason(path) == "v.boot.json is not the one that v.json was made with"
    path = recorded()
    evidence.path(path, "console.log").unlink()
    assert reason(path) == "v.console.log is not beside v.json"


def test_a_verdict_of_before_there_was_evidence_can_be_read(
    recorded: Callable[..., Path], workspace: Workspace
) -> None:
    path = recorded()
    value = json.loads(path.read_text())
    del value["evidence"]
    files.write_json(path, value)
    found = verify.load(path)
    assert found is not None and found.passed and found.evidence == {}
    assert "was made without" in str(verify.refusal(path, "i" * 64, workspace, 30))
    files.write_json(path, {**value, "evidence": 7})
    assert verify.load(path) is None


class FakeMachine:
    """Boots at once; a test replaces what else it does."""

    kind = "vm"
    boots = staticmethod(lambda: 1.0)
    words = staticmethod(lambda spec: "last words\n")

    def __init__(self, spec: Spec, workspace: Workspace) -> None:
        self.spec = spec
        self.ssh_config = spec.folder / "ssh_config"
        self.stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped = True

    def boot(self) -> None: ...

    def wait_ready(self, timeout: float) -> float:
        return type(self).boots()

    def reboot(self, timeout: float) -> float:
        return 2.0

    def ssh(self, command: str, *, timeout: float = 60.0, check: bool = True) -> run.Result:
        return run.Result((), 0, JOURNAL if "journalctl" in command else SHOWN, None)

    def collect_logs(self, folder: Path) -> list[Path]:
        files.write(folder / "console.log", type(self).words(self.spec))
        return [folder / "console.log"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "x.qcow2"
    files.write(path, "bytes")
    return path


Suite = Callable[[dict[str, list[dict[str, Any]] | None]], None]


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, image: Path) -> Suite:
    """Stands in for QEMU and pytest: give it what the suite reports in each phase (None: it reports nothing)."""
    monkeypatch.setitem(MAKERS, "vm", FakeMachine)  # type: ignore[arg-type]
    monkeypatch.setattr(FakeMachine, "boots", staticmethod(lambda: 1.0))
    monkeypatch.setattr(FakeMachine, "words", staticmethod(lambda spec: "last words\n"))
    monkeypatch.setattr(tree, "raw", lambda source, form, target: (files.write(target, "raw"), target)[1])  # type: ignore[func-returns-value]
    monkeypatch.setattr(tree, "dump", lambda *_: None)
    monkeypatch.setattr(tree, "boot_files", lambda *_: (image, None))
    monkeypatch.setattr(kvm, "accelerator", lambda *_: "tcg")
    monkeypatch.setattr(ssh, "key_pair", lambda folder: (folder / "key", "ssh-ed25519 AAAA"))
    monkeypatch.setattr(verify, "host_description", lambda: {"cpus": "2"})

    def start(reports: dict[str, list[dict[str, Any]] | None]) -> None:
        def fake(words: list[str], **_: Any) -> run.Result:
            told = {w.partition("=")[0]: w.partition("=")[2] for w in map(str, words)}
            phase = Path(told["--outcomes"]).stem
            report = reports[phase]
            if report is not None:
                files.write(Path(told["--outcomes"]), json.dumps(report))
                files.write(Path(told["--junitxml"]), '<testsuites><testsuite hostname="secret"/></testsuites>')
            good = report is not None and all(o["outcome"] in ("passed", "skipped") for o in report)
            return run.Result((), 0 if good else 1 if report is not None else 4, "usage error", None)

        monkeypatch.setattr(run, "run", fake)

    return start


def row(outcome: str = "passed", name: str = "t") -> dict[str, Any]:
    return {"name": name, "outcome": outcome, "seconds": 0.1, "message": "it broke\nmore"}


GOOD: dict[str, list[dict[str, Any]] | None] = {"booted": [row()], "rebooted": [row()]}


def test_a_passing_image_gets_its_verdict_and_leaves_nothing(suite: Suite, image: Path, workspace: Workspace) -> None:
    suite(GOOD)
    found = verify.verify(image, {}, verify.Settings(), workspace)
    assert found.passed
    path = verify.verdict_path(image)
    assert verify.refusal(path, files.sha256(image), workspace, 30) is None
    assert json.loads(path.read_text())["passed"] is True
    assert "secret" not in path.with_suffix(".xml").read_text()
    assert list(workspace.work.iterdir()) == []
    assert not workspace.failed.exists()


def beside(image: Path) -> set[str]:
    """The endings of what lies beside an image."""
    return {p.name.partition(".verdict-bios.")[2] for p in image.parent.iterdir() if p != image}


EVERYTHING = {"json", "xml", "console.log", "boot.json"}


def test_the_evidence_is_of_both_boots(suite: Suite, image: Path, workspace: Workspace) -> None:
    suite(GOOD)
    verify.verify(image, {}, verify.Settings(), workspace)
    path = verify.verdict_path(image)
    assert beside(image) == EVERYTHING
    assert evidence.path(path, "console.log").read_text() == "last words\n"
    boots = evidence.load(evidence.path(path, "boot.json")) or ()
    assert [b.phase for b in boots] == ["booted", "rebooted"]
    assert all(b.milestones["Patroni leads"] == 45100 for b in boots)


def test_a_node_that_shows_its_key_gets_no_verdict(
    suite: Suite, image: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite(GOOD)
    monkeypatch.setattr(FakeMachine, "words", staticmethod(lambda spec: f"node.yml is {spec.seed.node_yml}\n"))
    with pytest.raises(VerifyError, match=r"the node's key is in the console\.log"):
        verify.verify(image, {}, verify.Settings(), workspace)
    assert beside(image) == set()


def test_a_failure_leaves_nothing_of_the_verification_before(
    suite: Suite, image: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite(GOOD)
    verify.verify(image, {}, verify.Settings(), workspace)
    monkeypatch.setattr(FakeMachine, "words", staticmethod(lambda spec: "other words\n"))
    suite({"booted": [row("failed")]})
    with pytest.raises(VerifyError, match="1 failed"):
        verify.verify(image, {}, verify.Settings(), workspace)
    path = verify.verdict_path(image)
    assert beside(image) == EVERYTHING
    assert evidence.path(path, "console.log").read_text() == "other words\n"
    assert [b.phase for b in evidence.load(evidence.path(path, "boot.json")) or ()] == ["booted"]

    def full(path: Path, value: Any) -> None:
        raise OSError("no space")

    # Written last: without it, nothing of the rest may stay.
    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        verify.verify(image, {}, verify.Settings(), workspace)
    assert beside(image) == set()


@pytest.mark.parametrize("outcome", ["failed", "error", "skipped"])
def test_a_failing_image_gets_a_verdict_too(suite: Suite, image: Path, workspace: Workspace, outcome: str) -> None:
    suite({"booted": [row(), row(outcome, "test_y")], "rebooted": [row()]})
    with pytest.raises(VerifyError, match=f"1 {outcome}") as caught:
        verify.verify(image, {}, verify.Settings(), workspace)
    assert "test_y" in str(caught.value.details) and "it broke" in str(caught.value.details)
    found = verify.load(verify.verdict_path(image))
    assert found is not None and not found.passed
    assert (workspace.failed / "x" / "verify-bios" / "console.log").read_text() == "last words\n"
    assert list(workspace.work.iterdir()) == []


def test_a_suite_that_cannot_run_leaves_no_verdict(suite: Suite, image: Path, workspace: Workspace) -> None:
    suite(GOOD)
    verify.verify(image, {}, verify.Settings(), workspace)
    suite({"booted": None})
    with pytest.raises(VerifyError, match="pytest exited 4"):
        verify.verify(image, {}, verify.Settings(), workspace)
    assert not verify.verdict_path(image).exists()


def test_a_guest_that_does_not_come_up(
    suite: Suite, image: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> float:
        raise GuestError("no ssh")

    suite(GOOD)
    monkeypatch.setattr(FakeMachine, "boots", staticmethod(never))
    with pytest.raises(GuestError, match="no ssh") as caught:
        verify.verify(image, {}, verify.Settings(), workspace)
    assert caught.value.log is not None and caught.value.log.is_dir()
    assert not verify.verdict_path(image).exists()
    assert (workspace.failed / "x" / "verify-bios" / "console.log").exists()
    assert list(workspace.work.iterdir()) == []


def test_an_image_that_changes_meanwhile(
    suite: Suite, image: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch() -> float:
        image.write_text("other bytes")
        return 1.0

    suite(GOOD)
    monkeypatch.setattr(FakeMachine, "boots", staticmethod(touch))
    with pytest.raises(CorruptArtifact, match="changed while"):
        verify.verify(image, {}, verify.Settings(), workspace)
    assert not verify.verdict_path(image).exists()


def test_an_image_that_is_not_the_manifests(suite: Suite, image: Path, workspace: Workspace) -> None:
    suite(GOOD)
    manifest = {"files": [{"name": "x.qcow2", "sha256": "0" * 64}]}
    with pytest.raises(CorruptArtifact, match="not what its manifest says"):
        verify.verify(image, manifest, verify.Settings(), workspace)


PROBE = """
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2
@pytest.mark.skip(reason="r")
def test_skipped(): pass
@pytest.mark.xfail
def test_known(): assert False
@pytest.fixture
def broken(): raise RuntimeError("set-up")
def test_error(broken): pass
@pytest.fixture
def leaves():
    yield
    raise RuntimeError("tear-down")
def test_late(leaves): pass
"""


@pytest.mark.real_process
def test_the_suites_reporter_tells_every_outcome(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((SUITE / "conftest.py").read_text())
    (tmp_path / "test_probe.py").write_text(PROBE)
    (tmp_path / "node.json").write_text("{}")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tmp_path]
    words += [tmp_path, f"--node={tmp_path}/node.json", f"--outcomes={tmp_path}/out.json"]
    subprocess.run(words, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    found = {o["name"].partition("::")[2]: o["outcome"] for o in json.loads((tmp_path / "out.json").read_text())}
    assert found == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_skipped": "skipped",
        "test_known": "xfailed",
        "test_error": "error",
        "test_late": "error",
    }


@pytest.mark.real_process
def test_the_suite_without_a_node_says_what_to_run() -> None:
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", SUITE / "pytest.ini", SUITE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert "./inv verify-image" in done.stderr
