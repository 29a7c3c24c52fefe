"""The room that starts processes: nothing outlives it, and what was said is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from foundry import log, run
from foundry.errors import Cancelled, CommandFailed, ToolMissing

pytestmark = pytest.mark.real_process
# A command with a child of its own, which says both pids and would live for a minute.
FAMILY = ["sh", "-c", "sleep 60 & echo $$ $!; wait"]


def wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def test_result_has_code_output_and_log(tmp_path: Path) -> None:
    run.keep_logs_in(tmp_path)
    with log.stage("base", "test"):
        result = run.run(["sh", "-c", "echo out; echo err >&2; exit 3"], name="both", check=False)
    assert (result.returncode, result.output) == (3, "out\nerr")
    assert result.log == tmp_path / "base-both.log"
    assert result.log.read_text() == "$ sh -c 'echo out; echo err >&2; exit 3'\nout\nerr\n"


def test_lines_come_as_they_are_written_and_bad_bytes_do_no_harm() -> None:
    lines: list[str] = []
    run.run(["printf", r"a\r\n\377\nlast"], on_line=lines.append)
    assert lines == ["a", "�", "last"]


def test_failure_shows_the_last_lines_the_log_and_the_hint(tmp_path: Path) -> None:
    run.keep_logs_in(tmp_path)
    with pytest.raises(CommandFailed, match=r"^base: sh exited 7$") as caught:
        run.run(["sh", "-c", "seq 9; exit 7"], what="base: sh", hint="try again")
    assert caught.value.details == "last output: 6\n7\n8\n9"
    assert caught.value.log == tmp_path / "sh.log"
    assert caught.value.hint == "try again"


def test_a_full_disk_is_told_however_much_was_said_after_it() -> None:
    script = "echo 'pip: [Errno 28] No space left on device'; seq 9; exit 2"
    with pytest.raises(CommandFailed) as caught:
        run.run(["sh", "-c", script])
    assert caught.value.details == "pip: [Errno 28] No space left on device\nlast output: 6\n7\n8\n9"
    assert caught.value.hint is not None and "free some space" in caught.value.hint


def test_killed_by_a_signal() -> None:
    with pytest.raises(CommandFailed, match="was killed by SIGTERM"):
        run.run(["sh", "-c", "kill -TERM $$"])


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(ToolMissing, match="no-such-tool"):
        run.run(["no-such-tool"])
    with pytest.raises(ToolMissing) as caught:
        run.find("no-such-tool", "its-package")
    assert "apt-get install its-package" in (caught.value.hint or "")


def test_environment_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.setenv("https_proxy", "http://p")
    output = run.capture(["env"], env={"MINE": "1"})
    assert "PYTHONPATH" not in output
    assert {"https_proxy=http://p", "MINE=1", "LC_ALL=C.UTF-8"} <= set(output.splitlines())


def test_stdin_is_closed() -> None:
    assert run.capture(["cat"]) == ""


def test_timeout_ends_the_whole_group() -> None:
    pids: list[int] = []
    begin = time.monotonic()
    with pytest.raises(CommandFailed, match="took longer than 1 s"):
        run.run(FAMILY, timeout=1, on_line=lambda line: pids.extend(map(int, line.split())))
    assert time.monotonic() - begin < 8
    assert len(pids) == 2
    wait_until(lambda: all(map(gone, pids)))


def test_one_that_ignores_the_interrupt_is_killed() -> None:
    with run.Process(["sh", "-c", "trap '' INT; echo up; while :; do sleep 0.1; done"], name="deaf") as process:
        process.follow()
        wait_until(lambda: process.lines == ["up"])
        process.stop(grace=0.2)
        assert process.poll() == -signal.SIGKILL


def test_the_interrupt_is_sent_once() -> None:
    script = "trap 'echo int' INT; echo up; for i in 1 2 3 4 5; do sleep 0.1; done; echo end"
    with run.Process(["bash", "-c", script], name="counts") as process:
        process.follow()
        wait_until(lambda: "up" in process.lines)
        run.cancel()
        process.stop()
    assert process.lines == ["up", "int", "end"]


def test_leaving_the_block_ends_the_family() -> None:
    with run.Process(FAMILY, name="family") as process:
        process.follow()
        wait_until(lambda: bool(process.lines))
        pids = [int(word) for word in process.lines[0].split()]
    wait_until(lambda: all(map(gone, pids)))


def test_cancel_reaches_every_thread_and_lets_nothing_start() -> None:
    started = threading.Barrier(3, timeout=10)

    def work() -> None:
        run.run(["sh", "-c", "echo up; exec sleep 60"], on_line=lambda line: started.wait())

    begin = time.monotonic()
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(work), pool.submit(work)]
        started.wait()
        run.cancel()
        assert [type(job.exception()) for job in jobs] == [Cancelled, Cancelled]
    assert time.monotonic() - begin < 8
    with pytest.raises(Cancelled):
        run.run(["true"])
    run.keep_logs_in(Path("/nowhere"))
    assert not run.cancelled()


def _interrupt_a_job(pool: ThreadPoolExecutor, number: signal.Signals) -> None:
    pool.submit(run.run, ["sleep", "60"])
    wait_until(lambda: bool(run._live))
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruptible_ends_a_command_that_a_pool_waits_for(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    begin = time.monotonic()
    with pytest.raises(Cancelled) as caught, run.interruptible(), ThreadPoolExecutor() as pool:
        _interrupt_a_job(pool, number)
    assert time.monotonic() - begin < 8
    assert caught.value.code == 130
    assert signal.getsignal(number) == before


def test_a_command_dies_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "from foundry import run\n"
        f"run.run({FAMILY[:2]!r} + ['echo $$; exec sleep 60'], on_line=lambda line: print(line, flush=True))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: gone(pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root, as the builds that use them do")
def test_contained_ends_what_left_its_group() -> None:
    script = "setsid sleep 61 & sleep 0.2; exec sleep 0.1"
    run.run(run.contained(["sh", "-c", script]))
    time.sleep(0.1)
    running = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert b"sleep\x0061\x00" not in running


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root, as the builds that use them do")
def test_contained_without_network() -> None:
    output = run.capture(run.contained(["cat", "/proc/net/dev"], network=False))
    assert [line.split(":")[0].strip() for line in output.splitlines()[2:]] in (["lo"], [])


READS = ["sh", "-c", "echo up; read word; echo heard $word; exec sleep 60"]


def test_what_is_attached_learns_from_its_input_that_we_have_gone() -> None:
    """Whoever else gets its process group: here nothing sends it a signal."""
    process = run.Attached(["sh", "-c", "echo up; read word || echo alone"], name="keeper")
    heard = process.heard()
    assert next(heard) == "up"
    assert process.popen.stdin
    process.popen.stdin.close()
    assert list(heard) == ["alone"]
    with process:
        pass


def test_leaving_the_block_ends_what_is_attached() -> None:
    with run.Attached(READS, name="keeper") as process:
        assert next(process.heard()) == "up"
        pid = process.popen.pid
    assert gone(pid)


def test_what_is_let_go_of_goes_on_and_is_not_cancelled(tmp_path: Path) -> None:
    script = f"echo up; read word; echo $word >{tmp_path}/word; exec sleep 60"
    with run.Attached(["sh", "-c", script], name="keeper") as process:
        assert next(process.heard()) == "up"
        process.let_go("keep")
    pid = process.popen.pid
    try:
        run.cancel()
        wait_until(lambda: (tmp_path / "word").exists() and (tmp_path / "word").read_text() == "keep\n")
        assert not gone(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_has_ended_cannot_be_let_go() -> None:
    with run.Attached(["true"], name="keeper") as process:
        assert list(process.heard()) == []
        # It closes its output first, and its input a moment later: only the end of the process is the end of both.
        process.popen.wait(10)
        with pytest.raises(BrokenPipeError):
            process.let_go("keep")
