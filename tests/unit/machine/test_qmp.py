from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foundry.errors import GuestError
from foundry.machine.qmp import Monitor

Serve = Callable[[list[dict[str, Any]]], Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A QMP server that greets, and gives these answers in turn, one for each request, events before the next."""
    path = tmp_path / "qmp"
    threads: list[threading.Thread] = []

    def start(answers: list[dict[str, Any]]) -> Path:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()

        def work() -> None:
            connection, _ = server.accept()
            with server, connection, connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps({"QMP": {"version": {}}}) + "\n")
                stream.flush()
                for answer in answers:
                    if "event" not in answer:
                        stream.readline()
                    stream.write(json.dumps(answer) + "\n")
                    stream.flush()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(5)


def test_events_between_answers_are_passed_over(serve: Serve) -> None:
    path = serve([{"return": {}}, {"event": "RESET"}, {"return": "text"}])
    with Monitor(path) as monitor:
        assert monitor.human("info usernet") == "text"


def test_a_refusal_is_an_error(serve: Serve) -> None:
    path = serve([{"return": {}}, {"error": {"class": "X", "desc": "no such device"}}])
    with Monitor(path) as monitor, pytest.raises(GuestError, match="no such device"):
        monitor.execute("set_link", name="nic0", up=False)


def test_a_monitor_that_goes_away_is_an_error(serve: Serve) -> None:
    path = serve([{"return": {}}])
    with Monitor(path) as monitor, pytest.raises(GuestError, match="monitor"):
        monitor.execute("quit")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="does not answer"):
        Monitor(tmp_path / "none")
