"""The way into a guest: one ssh connection that is kept open, and commands that share it."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from foundry import files, run
from foundry.errors import CommandFailed, GuestError
from foundry.machine import Spec, wait
from foundry.run import Process, Result

HOST = "node"
_LOST = 255
_LOGS = {
    "journal.log": "sudo journalctl --no-pager -o short-monotonic -b",
    "cloud-init.log": "sudo cat /var/log/cloud-init.log",
    "cloud-init-output.log": "sudo cat /var/log/cloud-init-output.log",
}


def key_pair(folder: Path) -> tuple[Path, str]:
    """Make a throw-away ed25519 key in folder; returns the private key's path and the public key's line."""
    folder.mkdir(parents=True, exist_ok=True)
    private = folder / "key"
    private.unlink(missing_ok=True)
    run.find("ssh-keygen", "openssh-client")
    run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "foundry", "-f", private], what="ssh key")
    return private, private.with_suffix(".pub").read_text(encoding="ascii").strip()


class Connection:
    """A guest that listens on a port of this host's loopback, or of the loopback that proxy reaches.

    proxy: a command that connects to the guest's sshd and passes the socket on (ssh_config(5), ProxyUseFdpass).
    config: the ssh_config(5) file to write, in which the guest is called "node". control: the path of the shared
    connection's socket. dead: why the machine cannot answer any more, or None. console: its serial console's log.
    """

    def __init__(
        self,
        spec: Spec,
        config: Path,
        port: int,
        control: Path,
        dead: Callable[[], str | None],
        console: Path,
        *,
        proxy: Sequence[str] = (),
    ) -> None:
        self.spec = spec
        self.config = config
        self.port = port
        self.control = control
        self._proxy = proxy
        self._dead = dead
        self._console = console
        self._master: Process | None = None
        options = {
            "HostName": "127.0.0.1",
            "Port": port,
            "User": spec.user,
            "IdentityFile": f'"{spec.private_key.resolve()}"',
            "IdentitiesOnly": "yes",
            # The key that the guest made at its first boot must be the one that it still has after the next.
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": f'"{config.with_name("known_hosts").resolve()}"',
            "HostKeyAlias": spec.seed.instance_id,
            "ControlMaster": "no",
            "ControlPath": f'"{control}"',
            "BatchMode": "yes",
            "ConnectTimeout": 20,
            "ServerAliveInterval": 5,
            "ServerAliveCountMax": 6,
            "LogLevel": "ERROR",
        }
        if proxy:
            # ssh starts it by a shell of its own, wherever pytest-testinfra may be.
            home = shlex.quote(f"PYTHONPATH={Path(__file__).parents[2]}")
            options |= {"ProxyCommand": f"env {home} {shlex.join(proxy)}", "ProxyUseFdpass": "yes"}
        lines = [f"Host {HOST}", *(f"  {key} {value}" for key, value in options.items())]
        files.write(config, "\n".join(lines) + "\n", mode=0o600)

    def wait_ready(self, timeout: float) -> None:
        """Wait at most timeout seconds until ssh works and the boot is over. Raises GuestError."""
        begin = time.monotonic()
        title = f"{self.spec.name}: waiting for ssh"
        wait.until(self._open, what=title, timeout=timeout, dead=self._dead, console=self._console)
        left = max(1.0, timeout - (time.monotonic() - begin))
        # Its exit code says whether a unit failed, which is for others to judge; here only the end of the boot counts.
        self.run("systemctl is-system-running --wait; true", timeout=left)

    def _open(self) -> tuple[bool, object]:
        if self._master and self._master.poll() is None:
            answer = run.run(self._words("-O", "check", HOST), name=self._title, on_line=None, check=False)
            return answer.returncode == 0, answer.output or "ssh connects"
        if self._master:
            said = " ".join(self._master.tail) or "ssh ended"
            self._close_master()
            return False, said
        # A proxy says at once where nobody listens, which QEMU does not.
        banner = "SSH-" if self._proxy else self._banner()
        if banner.startswith("SSH-"):
            words = [*self._words("-M", "-N", "-o", "ControlMaster=yes"), HOST]
            self._master = Process(words, name=f"ssh-master-{self.spec.name}")
            self._master.follow()
        return False, banner

    def _banner(self) -> str:
        """What the guest's sshd says first; QEMU accepts the connection long before there is an sshd behind it."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as stream:
                stream.settimeout(5)
                return stream.recv(64).decode("ascii", "replace").strip() or "the connection was closed"
        except OSError as error:
            return str(error)

    @property
    def _title(self) -> str:
        return f"ssh-{self.spec.name}"

    def _words(self, *options: str) -> list[str]:
        return ["ssh", "-F", str(self.config), *options]

    def run(self, command: str, *, timeout: float, check: bool = True) -> Result:
        """Run a shell command in the guest. Raises GuestError when the guest is lost, CommandFailed if check."""
        what = f"{self.spec.name}: ssh"
        words = [*self._words("-T", HOST), command]
        try:
            result = run.run(words, name=self._title, timeout=timeout, check=False, what=what, on_line=None)
        except CommandFailed as error:
            raise self._lost(error.brief) from error
        if result.returncode == _LOST and (self._dead() or not self._alive()):
            raise self._lost(f"{what}: {self._dead() or 'the connection was lost'}")
        if check and result.returncode != 0:
            tail = "\n".join(result.output.splitlines()[-4:])
            brief = f"{self.spec.name}: {command!r} exited {result.returncode} in the guest"
            raise CommandFailed(brief, details=tail and f"last output: {tail}", log=result.log)
        return result

    def _alive(self) -> bool:
        return self._master is not None and self._master.poll() is None

    def _lost(self, brief: str) -> GuestError:
        tail = wait.console_tail(self._console)
        return GuestError(brief, details=f"the console's last lines:\n{tail}", log=self._console)

    def leave(self, command: str) -> None:
        """Run a command that ends the connection."""
        with suppress(GuestError):
            self.run(command, timeout=30, check=False)

    def logs(self) -> dict[str, str]:
        """The guest's logs, as far as it gives them: file name to text."""
        found = {}
        # A guest that does not answer once would not the next time either, and each time takes a minute.
        with suppress(GuestError):
            for name, command in _LOGS.items():
                result = self.run(command, timeout=60, check=False)
                if result.returncode == 0:
                    found[name] = result.output + "\n"
        return found

    def _close_master(self) -> None:
        if self._master:
            self._master.stop(grace=1)
        self._master = None
        self.control.unlink(missing_ok=True)

    def close(self) -> None:
        """End the shared connection."""
        self._close_master()
