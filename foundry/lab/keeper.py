"""The process that keeps a lab's machines while no command of ours runs: `python -m foundry.lab.keeper FOLDER`.

Machines end with the process that booted them, so that nothing is ever left over; what outlives `cluster-up` is this
one process. Until it is told "keep" on its standard input it belongs to the command that started it, and ends with
that: a closed pipe is the end, whatever killed the other side. Messages go out as JSON, one a line.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from foundry import files, log, run
from foundry.errors import Cancelled, FoundryError
from foundry.lab import plan as plans
from foundry.lab.cluster import Cluster
from foundry.machine.owner import started
from foundry.workspace import Workspace

PLAN, STATE, SOCKET, LOG, FAILED = "plan.json", "state.json", "keeper.socket", "keeper.log", "failed"
REBOOTED = 133
"""What systemd-nspawn ends with when its guest has asked for a reboot (--keep-unit leaves that to its caller)."""
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5.0


class _Lines(log.Silent):
    """Sends the messages of this process to the command that started it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def info(self, stage: str, text: str) -> None:
        tell(self.stream, info=text)

    def activity(self, stage: str, text: str) -> None:
        tell(self.stream, activity=text)


def tell(stream: TextIO, **message: Any) -> None:
    """Write one message; a reader that has gone is no error, since the closed pipe ends this process anyway."""
    with suppress(OSError):
        print(json.dumps(message), file=stream, flush=True)


def main(folder: Path, project: Path, build: Path) -> int:
    """Bring a lab up, keep it until told to stop, and end all of it; returns the exit code."""
    workspace = Workspace(project, build, f"lab-{folder.name}")
    log.use(_Lines(sys.stdout))
    run.keep_logs_in(folder / "logs")
    kept = threading.Event()
    try:
        with run.interruptible(), Cluster(plans.load(folder / PLAN), workspace, folder) as cluster:
            threading.Thread(target=_end_with_starter, args=(kept,), daemon=True).start()
            seconds = _form(cluster, folder)
            with _listening(folder) as server:
                _write_state(folder, cluster)
                tell(sys.stdout, formed=round(seconds, 1), table=cluster.patronictl_list())
                kept.wait()
                _let_go(folder)
                _serve(server, cluster)
    except FoundryError as error:
        tell(sys.stdout, error=[error.brief, error.details, error.log and str(error.log), error.hint], code=error.code)
        return error.code
    finally:
        (folder / STATE).unlink(missing_ok=True)
    return 0


def _form(cluster: Cluster, folder: Path) -> float:
    """Bring a cluster up. Raises FoundryError, and keeps then what its machines have logged."""
    try:
        return cluster.up()
    except Cancelled:
        raise
    except FoundryError:
        log.info("no cluster: collecting the logs of its machines")
        cluster.collect_logs(folder / FAILED)
        raise


def _end_with_starter(kept: threading.Event) -> None:
    """Wait for "keep"; anything else, and the end of the pipe above all, ends this process as Ctrl-C would."""
    if sys.stdin.readline() == "keep\n":
        kept.set()
    else:
        os.kill(os.getpid(), signal.SIGINT)


def _write_state(folder: Path, cluster: Cluster) -> None:
    state: dict[str, Any] = {"pid": os.getpid(), "since": started(os.getpid()), "space": str(cluster.network.switch)}
    state |= {"machines": {name: str(machine.ssh_config) for name, machine in cluster.machines.items()}}
    files.write_json(folder / STATE, state)


def _let_go(folder: Path) -> None:
    """Have no tie to the command that started this process any more."""
    written = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(source, target)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def _listening(folder: Path) -> Iterator[socket.socket]:
    path = folder / SOCKET
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server, short_path(folder) as near:
        server.bind(f"{near}/{SOCKET}")
        path.chmod(0o600)
        server.listen()
        try:
            yield server
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """A path of a folder that fits into a socket's address, which has 108 bytes (unix(7))."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _serve(server: socket.socket, cluster: Cluster) -> None:
    """Answer requests until one says stop; meanwhile start again what has rebooted itself."""
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        while True:
            if selector.select(LOOK_SECONDS):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(ANSWER_SECONDS)
                    wish = _wish(connection)
                    if wish == "stop":
                        cluster.close()
                    machines = {name: machine.dead() or "on" for name, machine in cluster.machines.items()}
                    with suppress(OSError):
                        connection.sendall(json.dumps({"machines": machines}).encode() + b"\n")
                if wish == "stop":
                    return
            _start_rebooted(cluster)


def _wish(connection: socket.socket) -> str:
    """The line that a client sends; nothing where it sends none in time."""
    try:
        return connection.recv(64).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _start_rebooted(cluster: Cluster) -> None:
    for name, machine in cluster.machines.items():
        if f"code {REBOOTED}" in (machine.dead() or ""):
            try:
                machine.boot()
            except FoundryError as error:
                # The others go on; this one is tried again at the next look.
                tell(sys.stdout, info=f"{name} has not come back from its reboot: {error.brief}")


if __name__ == "__main__":
    sys.exit(main(*(Path(word) for word in sys.argv[1:4])))
