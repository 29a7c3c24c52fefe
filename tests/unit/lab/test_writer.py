"""Clients and samplers without a server: what they record of what a connection tells them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foundry.errors import ConfigError
from foundry.lab import clients, history, writer
from foundry.lab.clients import Board, Client, Endpoint, Journal, Options, Program, Sampler
from foundry.lab.history import History
from foundry.lab.session import Doubtful, Failed, Login, NotSent, Refused

A, B = Endpoint("a", "10.0.0.1"), Endpoint("b", "10.0.0.2")
ROW = ["000000020000000000000003", "0/3000148", "2026-11-24 11:00:00+00"]


class FakeSession:
    """Answers by what the test has said; counts connections."""

    made: list[str] = []  # noqa: RUF012 - each test begins with a new one
    said: Callable[[str, str], list[str | None]]

    def __init__(self, address: str, login: Login, seconds: float, **more: object) -> None:
        FakeSession.made.append(address)
        self.address = address
        self.settings = login.settings
        if address == "unreachable":
            raise NotSent("timeout", "no connection in time")

    def ask(self, statement: str, seconds: float) -> list[str | None]:
        FakeSession.waited.append(seconds)
        return FakeSession.said(self.address, statement)

    def close(self) -> None:
        pass

    waited: list[float] = []  # noqa: RUF012


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.setattr(clients, "Session", FakeSession)
    monkeypatch.setattr(FakeSession, "made", [])
    monkeypatch.setattr(FakeSession, "waited", [])
    options = Options((A, B), Login("postgres", "x"), tmp_path / "h", clients=1, rate=1000.0, interval=0.001)
    made = Program(options, Journal(options.output), run="r1")
    made.journal.write("begin", at=0.0, run="r1", members=[["a", A.address], ["b", B.address]], wall=0.0)
    yield made
    made.journal.close()


def works(act: Callable[[], None], program: Program, enough: Callable[[History], bool]) -> History:
    """Let a client or a sampler work until its history is long enough."""
    thread = threading.Thread(target=act)
    thread.start()
    done = threading.Event()
    for _ in range(1000):
        if enough(history.load(program.options.output)) or not thread.is_alive():
            break
        done.wait(0.005)
    program.ending.begin()
    thread.join(10)
    assert not thread.is_alive()
    found = history.load(program.options.output)
    assert enough(found), found
    return found


def raising(failed: Failed) -> Callable[[str, str], list[str | None]]:
    def say(address: str, statement: str) -> list[str | None]:
        raise failed

    return say


def test_a_client_writes_each_value_once(program: Program) -> None:
    asked: list[str] = []

    def say(address: str, statement: str) -> list[str | None]:
        asked.append(statement)
        return ROW

    FakeSession.said = say
    program.board.accepted(A)
    found = works(Client(program, 0).work, program, lambda h: len(h.acknowledged()) >= 3)
    assert [o.value.sequence for o in found.operations] == list(range(1, len(found.operations) + 1))
    written = found.operations[0].written
    assert written is not None
    assert (written.member, written.timeline, written.position) == ("a", 2, 0x3000148)
    assert len(set(asked)) == len(asked) == len(found.operations)
    assert FakeSession.made == [A.address]
    assert program.first.is_set()


@pytest.mark.parametrize(
    ("failed", "outcome"),
    [
        (NotSent("08006", "closed"), "fail"),
        (Refused("25006", "read-only"), "fail"),
        (Doubtful("57P01", "terminated"), "unknown"),
        (Doubtful("timeout", "no answer in time"), "unknown"),
    ],
)
def test_a_client_records_what_is_certain_and_connects_anew(program: Program, failed: Failed, outcome: str) -> None:
    FakeSession.said = raising(failed)
    program.board.accepted(A)
    found = works(Client(program, 0).work, program, lambda h: sum(o.end < 1e99 for o in h.operations) >= 2)
    assert {(o.outcome, o.code) for o in found.operations} == {(outcome, failed.code)}
    assert len(FakeSession.made) >= 2


def test_a_client_connects_to_nobody_while_nobody_takes_writes(program: Program) -> None:
    found = works(Client(program, 0).work, program, lambda h: len(h.operations) >= 2)
    assert {(o.outcome, o.code) for o in found.operations} == {("fail", "08001")}
    assert FakeSession.made == []


def test_a_client_waits_longer_after_each_silence(program: Program) -> None:
    FakeSession.said = raising(Doubtful("timeout", "no answer in time"))
    program.board.accepted(A)
    works(Client(program, 0).work, program, lambda h: sum(o.end < 1e99 for o in h.operations) >= 3)
    assert FakeSession.waited[:3] == [3.0, 6.0, 12.0]


def test_clients_choose_whose_probe_was_accepted_last() -> None:
    board = Board()
    assert board.best() is None
    board.accepted(A)
    board.accepted(B)
    assert board.best() == B
    board.accepted(A)
    assert board.best() == A
    board.lost(A)
    assert board.best() == B


def test_a_sampler_writes_locally_to_who_is_not_in_recovery(program: Program) -> None:
    asked: list[str] = []

    def say(address: str, statement: str) -> list[str | None]:
        asked.append(statement)
        return ["f"] if "recovery" in statement else ROW

    FakeSession.said = say
    sampler = Sampler(program, A, 0.0)
    found = works(sampler.work, program, lambda h: len(h.probes) >= 2)
    assert {p.answer for p in found.probes} == {"accepted"}
    assert [w.timeline for w in found.writes()] == [2] * len(found.probes)
    assert "INSERT" in asked[1]
    assert program.board.best() == A


def test_a_sampler_makes_no_errors_in_a_replica_s_log(program: Program) -> None:
    def say(address: str, statement: str) -> list[str | None]:
        assert "INSERT" not in statement
        return ["t"]

    FakeSession.said = say
    program.board.accepted(A)
    found = works(Sampler(program, A, 0.0).work, program, lambda h: len(h.probes) >= 2)
    assert {(p.answer, p.code) for p in found.probes} == {("refused", "25006")}
    assert program.board.best() is None
    assert FakeSession.made == [A.address]


def test_a_sampler_goes_on_asking_who_does_not_answer(program: Program) -> None:
    dead = Endpoint("a", "unreachable")
    program.board.accepted(dead)
    found = works(Sampler(program, dead, 0.0).work, program, lambda h: len(h.probes) >= 2)
    assert {(p.answer, p.code) for p in found.probes} == {("silent", "timeout")}
    assert program.board.best() is None


def test_where_a_write_lies() -> None:
    assert clients.where(["0000001A0000001600000000", "16/B374D848"]) == (26, (0x16 << 32) + 0xB374D848)


def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from-the-environment")
    options = writer.parse(["--host", "a=10.0.0.1", "--host", "b=10.0.0.2", "--rate", "50", str(tmp_path / "h")])
    assert options.endpoints == (A, B)
    assert options.rate == 50
    assert options.login.password == "from-the-environment"
    assert "from-the-environment" not in repr(options)
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    options = writer.parse(["--host", "a=10.0.0.1", "--password-file", str(secret), str(tmp_path / "h")])
    assert options.login.password == "from-a-file"


@pytest.mark.parametrize("words", [["--host", "a"], ["--host", "=10.0.0.1"], ["--host", "a=10.0.0.1", "--rate", "0"]])
def test_options_that_make_no_writer(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        writer.parse([*words, str(tmp_path / "h")])
