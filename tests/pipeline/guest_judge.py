"""Runs in the guest: what `patroni --validate-config` says of each file that comes in as a line of JSON.

Patroni is imported once, and its own entry point runs in a child for each file. Only the network is played: the command
connects to the store's servers, which no made-up file has.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import tempfile
import traceback
from typing import Any

import patroni.config
import patroni.validator  # noqa: F401  # what main imports when it is asked
from patroni.__main__ import check_psycopg, main

HOST = re.compile(r"(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*", re.ASCII)
SECONDS = 20
_resolve = socket.getaddrinfo


def resolve(host: Any, port: Any, *more: Any, **options: Any) -> Any:
    """Addresses stand for themselves, and every host name that could be one is known."""
    name = "192.0.2.1" if isinstance(host, str) and re.search("[A-Za-z]", host) and HOST.fullmatch(host) else host
    return _resolve(name, port, *more[:3], flags=socket.AI_NUMERICHOST)


def connect(self: socket.socket, address: tuple[str, int]) -> int:
    """Everybody answers, at every port that there is."""
    if not 0 < address[1] < 65536:
        raise OverflowError("no such port")
    return 0


def run(path: str, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.alarm(SECONDS)
    sys.argv = ["patroni", "--validate-config", "--ignore-listen-port", path]
    code: Any = 1
    try:
        main()
        code = "it went on to start"
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code or 0)


def judge(path: str) -> tuple[int, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        run(path, writing)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as stream:
        words = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), words


def serve() -> None:
    check_psycopg()
    socket.getaddrinfo = resolve
    socket.socket.connect_ex = connect  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "patroni.yml")
        for line in sys.stdin:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(json.loads(line))
            print(json.dumps(judge(path)), flush=True)


if __name__ == "__main__":
    serve()
