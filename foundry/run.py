"""The one room that starts processes.

Every command runs in a session of its own with a rebuilt environment and closed stdin, writes to a log file that is
kept, and dies with us: SIGINT first, so that Packer can clean up after itself, then SIGKILL to the whole group. Should
this program itself be killed, `setpriv --pdeathsig` ends the command, and a `contain`ed command's pid namespace ends
everything it started.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, Self

from foundry import log
from foundry.errors import Cancelled, CommandFailed, ToolMissing

TAIL_LINES = 12
GRACE_SECONDS = 8.0
_KEPT = ("HOME", "TERM", "USER", "LOGNAME", "SSH_AUTH_SOCK", "GNUPGHOME", "PIP_CERT")
_KEPT_SUFFIXES = ("_proxy", "_PROXY", "_CA_BUNDLE", "_CERT_FILE", "_CERT_DIR")

_LEASH = ("setpriv", "--pdeathsig", "KILL", "--")

_live: set[Process] = set()
_lock = threading.Lock()
_cancelled = threading.Event()
_log_dir: Path | None = None


@dataclass(frozen=True)
class Result:
    """What a finished command left: its exit code, its whole output (stderr included), and its log file."""

    args: tuple[str, ...]
    returncode: int
    output: str
    log: Path | None


def keep_logs_in(folder: Path) -> None:
    """Write the log of every further command below folder (made when the first one is written)."""
    global _log_dir
    _log_dir = folder
    _cancelled.clear()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: a fixed PATH and locale, the user's proxies and certificates, and extra."""
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.endswith(_KEPT_SUFFIXES)}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **(extra or {})}


def user_setting(name: str) -> str | None:
    """A variable of the user's own environment, which commands do not get to see; None where it is empty."""
    return os.environ.get(name) or None


def find(tool: str, package: str) -> Path:
    """The path of a program of the host.

    Raises ToolMissing, naming the Debian package that has it.
    """
    found = shutil.which(tool, path=environment()["PATH"])
    if not found:
        raise ToolMissing(
            f"this host has no {tool}", hint=f"apt-get install {package}   (./inv does it where it may use apt)"
        )
    return Path(found)


def contained(args: Sequence[str], *, network: bool = True, proc: Path = Path("/proc")) -> list[str]:
    """args, to be run in pid and mount namespaces that end with its first process, so that nothing outlives it.

    network=False: an empty network namespace as well. proc: where the new namespace's /proc is mounted (a chroot's).
    Needs root, as chroots and the ownership of the files in them do.
    """
    network_option = [] if network else ["--net"]
    return [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
        f"--mount-proc={proc}",
        *network_option,
        "--",
        *args,
    ]


class Process:
    """A command under way. Use it as a context manager: leaving it ends the command and all of its group.

    cleaning: a short command that takes back what others did, and therefore runs even after cancel(). leash: whether
    the kernel ends the command together with the thread that has started it. keeps: descriptors that it inherits.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        name: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | int | None = None,
        on_line: Callable[[str], None] | None = None,
        cleaning: bool = False,
        leash: bool = True,
        keeps: Sequence[int] = (),
    ) -> None:
        if _cancelled.is_set() and not cleaning:
            raise Cancelled("interrupted")
        self.args = tuple(str(a) for a in args)
        if not shutil.which(self.args[0], path=environment(env)["PATH"]):
            raise ToolMissing(f"this host has no {self.args[0]}", hint="./inv doctor says what to install")
        self._interrupted = False
        self.name = name
        self.log = _open_log(name)
        self.lines: list[str] = []
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._on_line = on_line
        self._follower: threading.Thread | None = None
        self._sink = self.log.open("a", encoding="utf-8", errors="replace") if self.log else None
        if self._sink:
            self._sink.write(f"$ {shlex.join(self.args)}\n")
            self._sink.flush()
        try:
            self.popen = subprocess.Popen(
                [*(_LEASH if leash else ()), *self.args],
                cwd=cwd,
                env=environment(env),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=keeps,
            )
        except BaseException as error:
            if self._sink:
                self._sink.close()
            if isinstance(error, FileNotFoundError):
                raise ToolMissing(f"cannot run {self.args[0]}: {error}") from error
            raise
        if cleaning:
            return
        with _lock:
            _live.add(self)
        if _cancelled.is_set():
            self.stop(grace=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if not (self._follower and self._follower.is_alive()):
            self._close()

    def pump(self) -> int:
        """Copy output to the log until the command closes it; returns the exit code."""
        try:
            self._copy()
            return self.popen.wait()
        finally:
            self._forget()
            self._close()

    def _copy(self) -> None:
        for line in self.heard():
            if self._on_line:
                self._on_line(line)

    def heard(self) -> Iterator[str]:
        """Each line of output as it comes, until the command closes it."""
        assert self.popen.stdout is not None
        for raw in self.popen.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            self.lines.append(line)
            if line.strip():
                self.tail.append(line)
            if self._sink:
                self._sink.write(line + "\n")
                self._sink.flush()
            yield line

    def follow(self, then: Callable[[], object] | None = None) -> None:
        """Do what pump() does in a thread of its own, for a command in the background; then is called at its end."""

        def work() -> None:
            try:
                self.pump()
            finally:
                if then:
                    then()

        self._follower = threading.Thread(target=work, name=f"follow {self.name}", daemon=True)
        self._follower.start()

    def poll(self) -> int | None:
        """The exit code, or None while the command runs."""
        return self.popen.poll()

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End the command's whole group: SIGINT, after grace seconds SIGKILL. Does nothing to one that has ended."""
        if self.popen.poll() is None:
            self.interrupt()
            try:
                self.popen.wait(timeout=grace)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.popen.wait()
        self._signal(signal.SIGKILL)
        if self._follower:
            self._follower.join(timeout=GRACE_SECONDS)
        self._forget()

    def interrupt(self) -> None:
        """Send SIGINT, once: a second one would stop Packer in the middle of its cleaning up."""
        if not self._interrupted:
            self._interrupted = True
            self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)

    def _forget(self) -> None:
        with _lock:
            _live.discard(self)

    def _close(self) -> None:
        if self._sink:
            self._sink.close()
        if self.popen.stdout:
            self.popen.stdout.close()


class Attached(Process):
    """A command that may go on by itself: it has a pipe for its input, whose end tells it that we have gone."""

    def __init__(self, args: Sequence[str], *, name: str, cwd: Path | None = None, keeps: Sequence[int] = ()) -> None:
        super().__init__(args, name=name, cwd=cwd, stdin=subprocess.PIPE, leash=False, keeps=keeps)
        self._released = False

    def __exit__(self, *_: object) -> None:
        if not self._released:
            super().__exit__()
        assert self.popen.stdin is not None
        with suppress(OSError):
            self.popen.stdin.close()

    def let_go(self, word: str) -> None:
        """Write a line to the command, and leave it running. Raises OSError when it has ended."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{word}\n".encode())
        self.popen.stdin.flush()
        self._released = True
        self._forget()
        self._close()
        # Nobody waits for it any more, and nobody has to.
        self.popen.returncode = 0


def become(args: Sequence[str | Path]) -> NoReturn:
    """Replace this process by a command that has the user's own terminal."""
    words = [str(a) for a in args]
    os.execvpe(words[0], words, environment())  # noqa: S606 - no shell is wanted


def _open_log(name: str) -> Path | None:
    if _log_dir is None:
        return None
    _log_dir.mkdir(parents=True, exist_ok=True)
    stage = log.current_stage()
    return _log_dir / (f"{stage}-{name}.log" if stage and stage != name else f"{name}.log")


def run(
    args: Sequence[str | Path],
    *,
    name: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    check: bool = True,
    timeout: float | None = None,
    what: str | None = None,
    hint: str | None = None,
    on_line: Callable[[str], None] | None = log.activity,
    cleaning: bool = False,
) -> Result:
    """Run a command to its end.

    name: of its log file (default: the program's). timeout: seconds. what: the subject of the error.
    on_line: called with each line of output as it comes. cleaning: see Process.
    Raises CommandFailed when it exits with another code than 0 (unless check is False) or takes longer than timeout.
    """
    words = [str(a) for a in args]
    title = name or Path(words[0]).name
    with Process(words, name=title, cwd=cwd, env=env, stdin=stdin, on_line=on_line, cleaning=cleaning) as process:
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.stop()

        timer = threading.Timer(timeout, expire) if timeout else None
        if timer:
            timer.daemon = True
            timer.start()
        try:
            code = process.pump()
        finally:
            if timer:
                timer.cancel()
    if _cancelled.is_set() and not cleaning:
        raise Cancelled("interrupted")
    if expired.is_set():
        raise _failed(what or title, f"took longer than {timeout:.0f} s", process, hint)
    if check and code != 0:
        raise _failed(what or title, _ending(code), process, hint)
    return Result(tuple(words), code, "\n".join(process.lines), process.log)


def _ending(code: int) -> str:
    return f"exited {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def _failed(what: str, how: str, process: Process, hint: str | None) -> CommandFailed:
    tail = "\n".join(list(process.tail)[-4:])
    details = tail and f"last output: {tail}"
    # Said long before the last lines, which only tell that make(1) gave up.
    full = next((line for line in process.lines if os.strerror(errno.ENOSPC) in line), None)
    if full is not None:
        hint = hint or "free some space (`./inv clean` removes old builds), or set FOUNDRY_BUILD to a folder elsewhere"
        details = details if full in tail else f"{full.strip()}\n{details}"
    return CommandFailed(f"{what} {how}", details=details, log=process.log, hint=hint)


def capture(args: Sequence[str | Path], **options: object) -> str:
    """The output of a command, without the last newline; raises as run() does."""
    return run(args, on_line=None, **options).output  # type: ignore[arg-type]


def cancel() -> None:
    """End every command under way and let no further one start: the answer to Ctrl-C."""
    _cancelled.set()
    with _lock:
        running = list(_live)
    for process in running:
        process.interrupt()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        process.stop(grace=max(0.0, deadline - time.monotonic()))


def cancelled() -> bool:
    """Whether cancel() was called in this run."""
    return _cancelled.is_set()


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, and any interrupt into ended commands and Cancelled."""

    def interrupt(number: int, frame: object) -> None:
        # Not only where the exception arrives: on its way it may pass a pool that waits for its threads' commands.
        threading.Thread(target=cancel, daemon=True).start()
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        cancel()
        raise Cancelled("interrupted", hint="run it again: finished stages are reused") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
