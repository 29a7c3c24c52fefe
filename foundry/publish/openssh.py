"""OpenSSH's own sftp in batch mode, over one connection that stays open: the user's ssh settings, agent and keys work.

Nobody is asked anything: a key that is not loaded and a host that is not known are errors.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from foundry import run
from foundry.errors import CommandFailed
from foundry.publish.stores import Options, StoreError
from foundry.run import Process, Result

_LOST = 255
# The kernel's limit for the path of a unix socket is 107 bytes; ssh appends some of its own while it makes one.
_LONGEST = 70
# A line so slow that it is taken for a broken one, in bytes a second.
_SLOWEST = 32 << 10
_MEMORY = 256 << 20


class Refused(StoreError):
    """A server has answered, and said no."""


@dataclass(frozen=True)
class Address:
    """What an sftp:// URL says; path is absolute, or relative to the folder that one logs in to, and "" is that one."""

    host: str
    user: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError, saying what is wrong with the URL."""
        parts = urllib.parse.urlsplit(url)
        host, user = parts.hostname or "", urllib.parse.unquote(parts.username or "")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9a-fA-F:.]+", host):
            raise ValueError("sftp:// is followed by a host")
        if parts.username is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*", user):
            raise ValueError("that is no user's name")
        path = urllib.parse.unquote(parts.path)
        if parts.query or parts.fragment or not path or re.search(r'[\x00-\x1f\x7f"\\*?]', path):
            raise ValueError('a path follows the host, without any of " \\ * ? and control characters')
        if path == "/~" or path.startswith("/~/"):
            path = path[3:]
        return cls(host, user, parts.port, path.rstrip("/") or ("/" if path.startswith("/") else ""))

    @property
    def target(self) -> str:
        """The host as sftp takes it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def url(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        path = self.path if self.path.startswith("/") else f"/~/{self.path}".rstrip("/")
        return f"sftp://{user}{self.target}{port}{urllib.parse.quote(path, safe='/~')}"


class Session:
    """sftp in a folder of a server, which must be there. For one thread: its end ends the connection that it opened."""

    def __init__(self, address: Address, options: Options) -> None:
        self._address = address
        self._options = options
        self._master: Process | None = None
        self._sockets: Path | None = None

    def close(self) -> None:
        """End the connection."""
        if self._master:
            self._master.stop(grace=1)
        self._master = None
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None

    def do(self, *lines: str, cwd: Path | None = None, size: int = 0) -> None:
        """As ask. Raises StoreError where a line fails."""
        answer = self.ask(*lines, cwd=cwd, size=size)
        if answer.returncode != 0:
            raise self.refused(answer)

    def ask(self, *lines: str, cwd: Path | None = None, size: int = 0, limit: int | None = None) -> Result:
        """Have sftp carry out lines in the address's folder, up to the first that fails, unless that begins with "-".

        cwd: the folder of this host where it works. size: bytes that pass. limit: the bytes of a file that it may write
        here, whatever the server sends. Raises StoreError where the server is lost.
        """
        self._connect()
        return self._batch([f'cd "{self._address.path}"' if self._address.path else "pwd", *lines], cwd, size, limit)

    def _batch(self, lines: Sequence[str], cwd: Path | None, size: int = 0, limit: int | None = None) -> Result:
        with tempfile.TemporaryFile() as batch:
            # "@": without saying it again.
            batch.write("".join(f"@{line}\n" for line in lines).encode())
            batch.seek(0)
            words = ["sftp", *self._words("-o", "ControlMaster=no"), "-b", "-", "--", self._address.target]
            # sftp keeps a whole listing, which need not end, before it says the first line of it. Not --as: what a user
            # has ssh start, in Go for example, sets addresses aside that it never uses.
            limits = [f"--data={_MEMORY}", *([] if limit is None else [f"--fsize={limit}"])]
            words = ["prlimit", *limits, "--", *words]
            seconds = 2 * self._options.timeout + size / _SLOWEST
            try:
                answer = run.run(
                    words,
                    name="sftp",
                    cwd=cwd,
                    env={"TZ": "UTC"},
                    stdin=batch,
                    check=False,
                    timeout=seconds,
                    on_line=None,
                )
            except CommandFailed as error:
                self.close()
                raise self._lost(error.brief) from error
        if answer.returncode == _LOST or "Connection closed" in answer.output:
            self.close()
            raise self._lost(answer.output)
        return answer

    def _words(self, *more: str) -> list[str]:
        seconds = max(1, round(self._options.timeout / 4))
        options = {
            "ControlPath": f"{self._sockets}/ssh",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": max(1, round(self._options.timeout)),
            "ServerAliveInterval": seconds,
            "ServerAliveCountMax": 3,
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "LogLevel": "ERROR",
            **({"User": self._address.user} if self._address.user else {}),
            **({"Port": self._address.port} if self._address.port else {}),
        }
        config = ["-F", str(self._options.ssh_config)] if self._options.ssh_config else []
        return [*config, *(word for key, value in options.items() for word in ("-o", f"{key}={value}")), *more]

    def _connect(self) -> None:
        """Open the connection that all commands share, unless it is open."""
        if self._master and self._master.poll() is None:
            return
        self.close()
        run.find("ssh", "openssh-client")
        scratch = self._options.scratch
        if scratch:
            scratch.mkdir(parents=True, exist_ok=True)
        short = scratch is not None and len(str(scratch.resolve())) <= _LONGEST
        self._sockets = Path(tempfile.mkdtemp(dir=scratch.resolve() if scratch and short else None, prefix="pf-"))
        ended = threading.Event()
        words = ["ssh", *self._words("-o", "ControlMaster=yes", "-N", "-T"), "--", self._address.host]
        self._master = Process(words, name="ssh-store")
        self._master.follow(ended.set)
        deadline = time.monotonic() + 2 * self._options.timeout
        while not (self._sockets / "ssh").is_socket():
            if ended.wait(0.05) or time.monotonic() > deadline:
                said = "\n".join(self._master.lines) or "it did not answer"
                self.close()
                raise self._lost(said)
        if self._address.path:
            answer = self._batch([f'cd "{self._address.path}"'], None)
            if answer.returncode != 0:
                self.close()
                raise StoreError(
                    f"{self._address.url}: the server has no such folder, or does not let this user in",
                    details=answer.output,
                    hint="make it there, owned by the user who publishes",
                )

    def _lost(self, said: str) -> StoreError:
        hint = "is the server up, and reachable from here? What was sent is kept: run it again"
        if "Host key verification failed" in said or "host key" in said.lower():
            hint = (
                f"compare the server's fingerprint with what its owner says, then: ssh-keyscan {self._address.host} "
                ">> ~/.ssh/known_hosts"
            )
        elif "Permission denied" in said or "Too many authentication failures" in said:
            hint = "nobody is asked for a password here: load a key (ssh-add), or name one in ~/.ssh/config"
        return StoreError(f"{self._address.url}: no connection", details=said, hint=hint)

    def refused(self, answer: Result) -> StoreError:
        """The error for an answer that says that a line has failed."""
        return Refused(
            f"{self._address.url}: the server refused",
            details=answer.output or f"sftp exited {answer.returncode}",
            log=answer.log,
            hint="may this user write there? docs/stores.md says what the server must allow",
        )
