"""The few words of QEMU's monitor protocol that a machine needs."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foundry.errors import GuestError


class Monitor:
    """A connection to QEMU's QMP socket; a context manager. timeout: seconds for each answer.

    Raises GuestError when nobody answers or QEMU refuses a command.
    """

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise GuestError(f"QEMU's monitor does not answer: {error}") from error
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._answer("greeting", "QMP")
        self.execute("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._stream.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command and return what it returns."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            self._stream.write(json.dumps(request) + "\n")
            self._stream.flush()
        except OSError as error:
            raise GuestError(f"QEMU's monitor went away at {command}: {error}") from error
        return self._answer(command, "return")

    def human(self, line: str) -> str:
        """Run a command of the human monitor, for what QMP has no word for."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def _answer(self, command: str, key: str) -> Any:
        while True:
            try:
                text = self._stream.readline()
            except OSError as error:
                raise GuestError(f"QEMU's monitor did not answer {command}: {error}") from error
            if not text:
                raise GuestError(f"QEMU's monitor closed at {command}")
            message = json.loads(text)
            if "error" in message:
                raise GuestError(f"QEMU refused {command}: {message['error'].get('desc')}")
            if key in message:
                return message[key]
