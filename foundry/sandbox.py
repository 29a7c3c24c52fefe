"""A room without rights, for programs that parse bytes of somebody else: disks, file systems, partition tables.

What runs here belongs to a user that owns nothing else, has no capability and no network, sees of this host's files
only /usr and what it was lent, and has bounds on memory, time and disk: bytes that take such a program over get
nothing. Not root's user namespace: not every host has those for root in a container, and a uid of its own needs none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from foundry import files, run
from foundry.errors import Cancelled, CommandFailed
from foundry.run import Process, Result

USER = 65521
"""Nobody's: neither Debian (Policy 9.2.2) nor systemd (UIDS-GIDS) gives it to anyone, `nobody` included."""
SECONDS = 900.0
_MEMORY = 3 * 2**30
_LARGEST_FILE = 2**40
_OUTPUT = 256 * 2**20
# Of all that runs as that user at once, a QEMU's threads included.
_PROCESSES = 4096
_LEFT_FREE = 2**30
_LOOK_EVERY = 0.1
_MERGED = ("bin", "sbin", "lib", "lib64")


def root() -> bool:
    """Whether this process has rights to give up."""
    return os.geteuid() == 0


def run_in(
    words: Sequence[str | Path],
    *,
    name: str,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    check: bool = True,
    what: str | None = None,
    largest: int = _LARGEST_FILE,
    seconds: float = SECONDS,
) -> Result:
    """Run a command without rights.

    readable: files and folders that it sees, none of which it may change. writable: folders that it may fill; they
    become its user's. what: the subject of an error. largest: bytes of one file that it may write.
    Raises CommandFailed when it fails (unless check is False), and when it goes past a bound.
    """
    run.find("bwrap", "bubblewrap")
    for folder in writable:
        give(folder)
    title = what or Path(words[0]).name
    ended: list[str] = []
    said = 0

    def end(why: str) -> None:
        ended.append(why)
        process.stop(grace=0)

    def count(line: str) -> None:
        nonlocal said
        said += len(line) + 1
        if said > _OUTPUT:
            end(f"said more than {files.human(_OUTPUT)}")

    def watch() -> None:
        left = seconds
        while not done.wait(_LOOK_EVERY):
            left -= _LOOK_EVERY
            if left < 0:
                end(f"took longer than {seconds:.0f} s")
                break
            if any(shutil.disk_usage(folder).free < _LEFT_FREE for folder in writable):
                end(f"wrote until less than {files.human(_LEFT_FREE)} were free")
                break

    done = threading.Event()
    with Process(_words(words, readable, writable, largest), name=name, on_line=count) as process:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            code = process.pump()
        finally:
            done.set()
            watcher.join()
    if run.cancelled():
        raise Cancelled("interrupted")
    if ended or (check and code != 0):
        how = ended[0] if ended else f"exited {code}"
        tail = "\n".join(list(process.tail)[-4:])
        raise CommandFailed(f"{title} {how}", details=tail and f"last output: {tail}", log=process.log)
    return Result(tuple(map(str, words)), code, "\n".join(process.lines), process.log)


def _words(words: Sequence[str | Path], readable: Sequence[Path], writable: Sequence[Path], largest: int) -> list[str]:
    shown = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    shown += ["--ro-bind", "/usr", "/usr", "--dev", "/dev", "--chdir", "/"]
    for place in _MERGED:
        shown += ["--symlink", f"usr/{place}", f"/{place}"]
    # What bwrap makes by itself on the way to them is root's alone.
    ways = {parent for path in (*writable, *readable) for parent in path.absolute().parents[:-1]}
    for parent in sorted(ways):
        shown += ["--perms", "0755", "--dir", str(parent)]
    for folder in writable:
        shown += ["--bind", str(folder.resolve()), str(folder.absolute())]
    for path in readable:
        shown += ["--ro-bind", str(path.resolve()), str(path.absolute())]
    bounds = [f"--as={_MEMORY}", f"--fsize={largest}", "--core=0"]
    rights = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    if root():
        rights += [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        bounds.append(f"--nproc={_PROCESSES}")
    else:
        shown.append("--unshare-user")
        rights = ["setpriv", "--no-new-privs"]
    return [*shown, "--", *rights, "--", "prlimit", *bounds, "--", *map(str, words)]


def give(path: Path) -> None:
    """Make a folder or file that user's, and let nobody but it and root see what is in there."""
    path.chmod(0o700 if path.is_dir() else 0o600)
    if root():
        os.chown(path, USER, USER)


@contextmanager
def lent(path: Path, beside: Path) -> Iterator[Path]:
    """A file as that user can read it: itself, or where others may not read it, a copy in the folder beside."""
    facts = path.stat()
    if not root() or facts.st_mode & 0o004 or facts.st_uid == USER:
        yield path
        return
    with tempfile.TemporaryDirectory(dir=beside, prefix=".lent.") as folder:
        copy = Path(folder) / path.name
        files.need_space(beside, facts.st_blocks * 512, path.name)
        run.run(["cp", "--sparse=always", "--reflink=auto", path, copy], name="lend")
        give(copy)
        yield copy


def qemu(empty: Path | None) -> list[str]:
    """QEMU's options that take its rights away once it has opened its files, before its guest begins.

    empty: a folder with nothing in it, all that it sees of the host's files from then on; None leaves them in sight.
    Without these a guest that breaks out of QEMU has all of root's rights.
    """
    words = ["-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny", "-monitor", "none"]
    if not root():
        return words
    words += ["-runas", f"{USER}:{USER}"]
    if empty:
        empty.mkdir(parents=True, exist_ok=True)
        words += ["-chroot", str(empty)]
    return words


def leashed(words: Sequence[str]) -> list[str]:
    """A command that changes its user, and all the same ends with whoever has started it.

    The kernel forgets the wish to be killed with one's parent when credentials change (prctl(2), PR_SET_PDEATHSIG).
    """
    if not root():
        return list(words)
    return run.contained(["sh", "-c", '"$@"; exit $?', "sh", *words])
