"""A container: systemd-nspawn over a copy-on-write view of an image's own root file system.

It boots in seconds where an emulated machine needs a minute, and leaves out what a container has none of: firmware,
boot loader, kernel, udev, the watchdog. Its mounts, processes and the loop device end with its first process.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from foundry import files, run, tree
from foundry.errors import GuestError
from foundry.machine import Spec, cgroups, inotify, no_user_namespaces, seed, sockets, wait
from foundry.machine.netns import Network, Nic
from foundry.machine.ssh import Connection
from foundry.run import Process, Result
from foundry.workspace import Workspace

DEFAULT_MAC = "52:54:00:50:47:01"
SEED = "var/lib/cloud/seed/nocloud"
# Relative to the machine's folder: a mount option cannot hold a comma or a colon, which the folder's path may have.
NEVER = ("CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_LEASE")
"""What systemd-nspawn would leave to the guest's root, and nothing in an image needs: with the first a guest mounts a
/proc or a control group in which it tells the host's kernel what to run, with the second it reads the host's disks."""
_START = """
mount -o "loop,ro,noload,nodev,nosuid,offset=$1" "$2" lower
mount -t overlay overlay -o nodev,lowerdir=lower,upperdir=upper,workdir=work root
# From within the namespace, so that /sys shows its cards and not the host's.
space=$3
shift 3
# 0 is whoever writes it.
while [ "$1" != -- ]; do
    echo 0 >"$1/cgroup.procs"
    shift
done
shift
exec nsenter --net="$space" "$@" </dev/null >>console.log 2>&1
"""


class Container:
    """See foundry.machine.Machine."""

    kind = "container"

    def __init__(self, spec: Spec, workspace: Workspace) -> None:
        self.spec = spec
        self.workspace = workspace
        self.folder = spec.folder
        self.ssh_config = spec.folder / "ssh_config"
        self.console_log = spec.folder / "console.log"
        self._own_network = None if spec.network else Network()
        self.network = spec.network or self._own_network
        self._group: str | None = None
        self._process: Process | None = None
        self._connection: Connection | None = None
        self._sockets: Path | None = None
        self._since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._own_network:
            self._own_network.close()

    def boot(self) -> None:
        if self._process and self._process.poll() is None:
            raise GuestError(f"{self.spec.name} runs already")
        run.find("systemd-nspawn", "systemd-container")
        inotify.require_room()
        for name in ("lower", "upper", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_seed()
        disk = raw_disk(self.spec, self.workspace)
        assert self.network is not None
        space = self.network.attach(self.spec.name, self._nics())
        self._group = space.name
        words = ["sh", "-euc", _START, "sh", str(tree.root(disk).offset), str(disk), str(space)]
        words += [*map(str, cgroups.make(self._group)), "--", *self._nspawn()]
        self._since = time.monotonic()
        self._process = Process(run.contained(words), name=f"nspawn-{self.spec.name}", cwd=self.folder)
        self._process.follow()
        enter = ["nsenter", f"--net={space}", sys.executable, "-m", "foundry.machine.pass_socket", "22"]
        self._sockets = self._sockets or sockets.make(self.folder)
        self._disconnect()
        self._connection = Connection(
            self.spec, self.ssh_config, 22, self._sockets / "ssh", self.dead, self.console_log, proxy=enter
        )

    def _nspawn(self) -> list[str]:
        return [
            *self._wall()[0],
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--boot",
            "--directory=root",
            f"--machine={self.spec.name}",
            # The guest sets its own addresses, as on any machine.
            "--capability=CAP_NET_ADMIN",
            *self._wall()[1],
            "--settings=no",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=read-only",
            *(f"--tmpfs={place}" for place in self.spec.tmpfs),
        ]

    def _wall(self) -> tuple[list[str], list[str]]:
        """What keeps the guest's root from the host: a program before systemd-nspawn, and options of that one."""
        if self.spec.privileged:
            return [], []
        before = [sys.executable, "-I", no_user_namespaces.__file__]
        # Debian's systemd wants /run/lock, and may no longer mount anything itself.
        return before, ["--tmpfs=/run/lock:mode=1777,size=5M", f"--drop-capability={','.join(NEVER)}"]

    def _write_seed(self) -> None:
        """Where cloud-init looks for a seed first (NoCloud documentation, "Source 2: drop-in directory")."""
        folder = self.folder / "upper" / SEED
        cards = [f"etc/systemd/network/10-cloud-init-eth{n}.network.d" for n in range(len(self._nics()))]
        for name in (SEED, *cards):
            _folder(self.folder / "upper", name)
        seed.write(self.spec.seed, folder)
        etc = self.folder / "upper" / "etc"
        # The disk's partitions are not there to be mounted.
        files.write(etc / "fstab", "")
        for number, nic in enumerate(self._nics()):
            if not nic.ipv6:
                # Beside the file that cloud-init writes.
                drop_in = etc / "systemd/network" / f"10-cloud-init-eth{number}.network.d" / "no-ipv6.conf"
                files.write(drop_in, "[Network]\nLinkLocalAddressing=no\n")

    def _nics(self) -> tuple[Nic, ...]:
        static = self.spec.seed.static
        return self.spec.nics or (Nic(dict(static.match).get("macaddress", DEFAULT_MAC) if static else DEFAULT_MAC),)

    def dead(self) -> str | None:
        """Why this machine cannot answer: it is off, or systemd-nspawn ended; None while it runs."""
        if self._process is None:
            return "the machine is off"
        code = self._process.poll()
        if code is None:
            return None
        self._process.stop()
        last = self._process.tail[-1] if self._process.tail else wait.console_tail(self.console_log, 1)
        return f"systemd-nspawn ended with code {code} {last}".rstrip()

    def wait_ready(self, timeout: float) -> float:
        self._connected().wait_ready(timeout)
        return time.monotonic() - self._since

    def _connected(self) -> Connection:
        if self._connection is None:
            raise GuestError(f"{self.spec.name} was not booted")
        return self._connection

    def ssh(self, command: str, *, timeout: float = 60.0, check: bool = True) -> Result:
        return self._connected().run(command, timeout=timeout, check=check)

    def reboot(self, timeout: float) -> float:
        connection, process = self._connected(), self._process
        assert process is not None
        begin = time.monotonic()
        # With --keep-unit systemd-nspawn ends at a reboot (code 133) and leaves starting again to its caller.
        connection.leave("sudo systemctl reboot")
        wait.until(
            lambda: (process.poll() is not None, "still running"),
            what=f"{self.spec.name}: going down",
            timeout=timeout,
            dead=lambda: None,
            console=self.console_log,
        )
        self._disconnect()
        self.boot()
        self._connected().wait_ready(max(1.0, timeout - (time.monotonic() - begin)))
        return time.monotonic() - begin

    def cut_power(self) -> None:
        if self._process:
            self._process.stop(grace=0)
        self._disconnect()

    def cut_network(self) -> None:
        assert self.network is not None
        self.network.cut(self.spec.name)

    def restore_network(self) -> None:
        assert self.network is not None
        self.network.restore(self.spec.name)

    def freeze(self) -> None:
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        reason = self.dead()
        if reason or self._group is None:
            raise GuestError(f"{self.spec.name}: {reason}")
        cgroups.freeze(self._group, frozen=frozen)

    def console(self, lines: int = 20) -> str:
        return wait.console_tail(self.console_log, lines)

    def collect_logs(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        kept: list[Path] = []
        if self.console_log.exists():
            kept.append(Path(shutil.copy(self.console_log, folder / f"{self.spec.name}-console.log")))
        if self.dead() is None and self._connection:
            for name, text in self._connection.logs().items():
                kept.append(folder / f"{self.spec.name}-{name}")
                files.write(kept[-1], text)
        return kept

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def stop(self) -> None:
        self._disconnect()
        if self._process:
            self._process.stop(grace=0)
        self._process = None
        if self._group:
            cgroups.remove(self._group)
        self._group = None
        sockets.remove(self._sockets, self.folder)
        self._sockets = None


def _folder(upper: Path, name: str) -> None:
    """Make a folder in the layer; its parents hide those of the image below, mode and all, whatever the umask is."""
    path = upper
    for part in Path(name).parts:
        path = path / part
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o755)


def raw_disk(spec: Spec, workspace: Workspace) -> Path:
    """The image as a raw disk, made once for all machines that boot these bytes, and whole: this host mounts it."""
    if spec.format == "raw":
        disk = spec.image.resolve()
        tree.check(disk)
        return disk
    facts = spec.image.stat()
    key = files.sha256_text(f"{spec.image.resolve()} {facts.st_size} {facts.st_mtime_ns} {facts.st_ino}")[:16]
    store = workspace.stage("raw")
    disk = store / key / "disk.raw"
    store.mkdir(parents=True, exist_ok=True)
    store.chmod(0o700)
    # Two labs at once would each replace the other's, between its making and its mounting.
    with (store / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not disk.exists():
            for half_made in store.glob(".*.*"):
                shutil.rmtree(half_made, ignore_errors=True)
            with files.whole_folder(store / key) as scratch:
                tree.check(tree.raw(spec.image, spec.format, scratch / "disk.raw"))
    return disk
