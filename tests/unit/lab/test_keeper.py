"""What a keeper and the command that started it say to each other, and what it answers while it keeps a lab."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from foundry import log
from foundry.errors import Cancelled, FoundryError, GuestError
from foundry.lab import keeper
from foundry.lab.cluster import Cluster
from tests.unit.lab.fakes import FakeMachine, cluster


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = cluster(a=FakeMachine(), b=FakeMachine("it burnt down"))
    monkeypatch.setattr(found, "close", lambda: [m.stop() for m in found.machines.values()])
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    return found


@contextmanager
def serving(folder: Path, lab: Cluster) -> Iterator[threading.Thread]:
    with keeper._listening(folder) as server:
        thread = threading.Thread(target=keeper._serve, args=(server, lab))
        thread.start()
        try:
            yield thread
        finally:
            if thread.is_alive():
                say(folder, "stop\n")
            thread.join(10)
            assert not thread.is_alive()


def say(folder: Path, text: str) -> str:
    with socket.socket(socket.AF_UNIX) as client, keeper.short_path(folder) as near:
        client.settimeout(10)
        client.connect(f"{near}/{keeper.SOCKET}")
        client.sendall(text.encode())
        client.shutdown(socket.SHUT_WR)
        return client.makefile(encoding="utf-8").read()


def test_it_tells_how_its_machines_are_until_it_is_told_to_stop(lab: Cluster, tmp_path: Path) -> None:
    with serving(tmp_path, lab) as thread:
        assert (tmp_path / keeper.SOCKET).stat().st_mode & 0o777 == 0o600
        assert json.loads(say(tmp_path, "status\n")) == {"machines": {"a": "on", "b": "it burnt down"}}
        assert [m.told for m in lab.machines.values()] == [[], []]  # type: ignore[attr-defined]
        assert "machines" in say(tmp_path, "stop\n")
        thread.join(10)
        assert [m.told for m in lab.machines.values()] == [["stop"], ["stop"]]  # type: ignore[attr-defined]
    assert not (tmp_path / keeper.SOCKET).exists()


@pytest.mark.parametrize("text", ["", "halt\n", "\n"])
def test_what_is_no_wish_stops_nothing(text: str, lab: Cluster, tmp_path: Path) -> None:
    with serving(tmp_path, lab) as thread:
        say(tmp_path, text)
        assert "machines" in say(tmp_path, "status\n")
        assert thread.is_alive()


def test_a_machine_that_rebooted_itself_is_started_again_and_a_dead_one_is_not() -> None:
    rebooted = FakeMachine("systemd-nspawn ended with code 133 ")
    crashed = FakeMachine("systemd-nspawn ended with code 1 oh")
    keeper._start_rebooted(cluster(a=rebooted, b=crashed, c=FakeMachine()))
    assert (rebooted.told, crashed.told) == (["boot"], [])
    assert rebooted.dead() is None


def test_one_that_cannot_be_started_again_is_told_and_does_not_end_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stuck = FakeMachine("systemd-nspawn ended with code 133 ", stuck=True)
    other = FakeMachine("systemd-nspawn ended with code 133 ")
    keeper._start_rebooted(cluster(a=stuck, b=other))
    assert (stuck.told, other.told) == (["boot"], ["boot"])
    told = json.loads(capsys.readouterr().out)
    assert told == {"info": "a has not come back from its reboot: no loop device is left"}


@pytest.mark.parametrize("said", [b"status\n", b"", b"\xff\xfe\n"])
def test_a_client_that_goes_away_ends_nothing(said: bytes, lab: Cluster, tmp_path: Path) -> None:
    """Its answer cannot be written: cluster-status, ended by Ctrl-C at the wrong moment, must not end the lab."""
    with serving(tmp_path, lab) as thread:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as client, keeper.short_path(tmp_path) as near:
                client.connect(f"{near}/{keeper.SOCKET}")
                client.sendall(said)
        assert "machines" in say(tmp_path, "status\n")
        assert thread.is_alive()


def test_who_says_nothing_is_waited_for_a_moment_only(
    lab: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "ANSWER_SECONDS", 0.1)
    with serving(tmp_path, lab), socket.socket(socket.AF_UNIX) as silent, keeper.short_path(tmp_path) as near:
        silent.connect(f"{near}/{keeper.SOCKET}")
        assert "machines" in say(tmp_path, "status\n")


def test_a_cluster_that_does_not_form_leaves_its_logs(
    lab: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: FoundryError) -> None:
        raise error

    monkeypatch.setattr(lab, "up", lambda: fail(Cancelled("interrupted")))
    with pytest.raises(Cancelled):
        keeper._form(lab, tmp_path)
    assert [m.told for m in lab.machines.values()] == [[], []]  # type: ignore[attr-defined]
    monkeypatch.setattr(lab, "up", lambda: fail(GuestError("no leader")))
    with pytest.raises(GuestError, match="no leader"):
        keeper._form(lab, tmp_path)
    assert [m.told for m in lab.machines.values()] == [["logs to failed"]] * 2  # type: ignore[attr-defined]


def test_a_socket_fits_however_long_the_path_of_the_folder_is(lab: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with serving(folder, lab):
        assert "machines" in say(folder, "status\n")
    with keeper.short_path(folder) as near:
        assert len(near) < 80
        assert Path(near).samefile(folder)
    assert not Path(near).exists()


def test_messages_are_lines_of_json() -> None:
    stream = io.StringIO()
    log.use(keeper._Lines(stream))
    log.info("a\nb")
    log.activity("c")
    keeper.tell(stream, formed=1.5, table="t")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"info": "a\nb"},
        {"activity": "c"},
        {"formed": 1.5, "table": "t"},
    ]


def test_nobody_who_listens_is_no_error() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    # Closing it would write once more what could not be written.
    stream = os.fdopen(theirs, "w", closefd=False, buffering=1)
    keeper.tell(stream, info="x")
    os.close(theirs)


@pytest.mark.parametrize(("said", "keeps"), [(b"keep\n", True), (b"", False), (b"kee", False), (b"other\n", False)])
def test_it_goes_on_when_told_so_and_ends_with_its_starter(
    said: bytes, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    ours, theirs = os.pipe()
    os.write(theirs, said)
    os.close(theirs)
    monkeypatch.setattr(os, "kill", lambda *words: sent.append(words))
    kept = threading.Event()
    with os.fdopen(ours, encoding="utf-8") as stream:
        monkeypatch.setattr(keeper.sys, "stdin", stream)
        keeper._end_with_starter(kept)
    assert kept.is_set() is keeps
    assert sent == ([] if keeps else [(os.getpid(), signal.SIGINT)])
