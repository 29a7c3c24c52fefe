"""What sftp:// URLs mean, and what OpenSSH's client says."""

from __future__ import annotations

import calendar
import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from foundry import log, run
from foundry.errors import Cancelled, CommandFailed
from foundry.publish import openssh, sftp
from foundry.publish.openssh import Address, Refused, Session
from foundry.publish.sftp import SftpStore, _when
from foundry.publish.stores import Missing, Options, StoreError
from foundry.run import Result

LISTING = """\
-rw-r--r--    ? 1000     1000     24117248 Nov 24 16:00 images/a/disk.qcow2
drwxr-xr-x    2 1000     1000         4096 Nov 24 16:00 images/a/more
lrwxrwxrwx    1 0        0               4 Jan  2  2025 images/a/link
-rw-r--r--+   1 0        0               4 Feb 29  2024 images/a/with space
"""
LEFT = """\
-rw------- 1 0 0 10 Nov 24 16:00 .incoming/abc.1
-rw------- 1 0 0 30 Nov 24 16:00 .incoming/abc.2
-rw------- 1 0 0 99 Nov 24 16:00 .incoming/abc.3
-rw------- 1 0 0 20 Nov 24 16:00 .incoming/abcd.4
"""


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("sftp://host/srv/x", Address("host", "", None, "/srv/x")),
        ("sftp://me@host:22/srv/x/", Address("host", "me", 22, "/srv/x")),
        ("sftp://host/", Address("host", "", None, "/")),
        ("sftp://host/~/x/y", Address("host", "", None, "x/y")),
        ("sftp://host/~", Address("host", "", None, "")),
        ("sftp://host/~/", Address("host", "", None, "")),
        ("sftp://[::1]:2222/a%20b", Address("::1", "", 2222, "/a b")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    found = Address.parse(url)
    assert found == address
    assert Address.parse(found.url) == address


@dataclass
class Answers:
    """In place of a session: answers in order, and what was asked."""

    answers: list[tuple[int, str]]
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def ask(self, *lines: str, cwd: Path | None = None, size: int = 0, limit: int | None = None) -> Result:
        self.asked.append(lines)
        code, output = self.answers.pop(0)
        return Result(("sftp",), code, output, None)

    def refused(self, answer: Result) -> StoreError:
        return StoreError(f"refused: {answer.output}")


def store(*answers: tuple[int, str]) -> tuple[SftpStore, Answers]:
    found, session = SftpStore(Address.parse("sftp://host/srv"), Options()), Answers(list(answers))
    found._session = session  # type: ignore[assignment]
    return found, session


def test_listings() -> None:
    assert store((0, LISTING))[0].names("images/a") == ["disk.qcow2", "link", "more/", "with space"]
    assert store((0, LISTING.splitlines()[0]))[0].size("images/a/disk.qcow2") == 24117248
    assert store((0, LISTING))[0].size("images/a") is None
    assert store((1, 'Can\'t ls: "/srv/images/a" not found'))[0].size("images/a") is None


def test_only_what_is_not_there_is_missing() -> None:
    with pytest.raises(StoreError, match=r"refused: remote readdir.*Permission denied"):
        store((1, 'remote readdir("/srv/a"): Permission denied'))[0].names("a")
    with pytest.raises(Missing):
        store((1, 'File "/srv/a" not found.'))[0].read("a")
    with pytest.raises(StoreError, match="refused"):
        store((1, 'remote open "/srv/a": Permission denied'))[0].read("a")


def test_room_on_the_server() -> None:
    table = "    Size     Used    Avail   (root)    %Capacity\n    6144     2048     4096     4096          33%"
    assert store((0, table))[0]._free() == 4096 << 10
    assert store((1, "Server does not support statvfs@openssh.com extension"))[0]._free() is None


def test_of_several_leftovers_the_largest_that_can_be_had_is_taken() -> None:
    found, session = store(
        (0, LEFT),
        (1, "No such file or directory"),
        (0, ""),
    )
    left = found._wait("images/a", "abc", 50, 0)
    assert left is not None
    partial, offset = found._claim(left, "abc")
    assert offset == 10
    assert [line[0].split()[:2] for line in session.asked[1:]] == [
        ["rename", ".incoming/abc.2"],
        ["rename", ".incoming/abc.1"],
    ]
    assert partial.startswith(".incoming/abc.") and partial != ".incoming/abc.1"


def grown(size: int) -> tuple[int, str]:
    return 0, f"-rw------- 1 0 0 {size} Nov 24 16:00 .incoming/abc.1"


ABSENT = (1, 'Can\'t ls: "/srv/images/a" not found')


def test_an_upload_that_grows_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(log, "activity", said.append)
    there = (0, "-rw-r--r-- 1 0 0 50 Nov 24 16:00 images/a")
    found, session = store(grown(10), ABSENT, grown(20), ABSENT, grown(50), there)
    assert found._wait("images/a", "abc", 50, 1) is None
    assert session.answers == []
    assert [line.rpartition(": ")[2] for line in said] == [f"{n} B of 50 B are there" for n in (10, 20, 50)]


def test_an_upload_that_does_not_grow_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr("time.monotonic", lambda: float(next(now)))
    monkeypatch.setattr("time.sleep", lambda _: None)
    found, session = store(grown(10), ABSENT, grown(20), ABSENT, grown(20))
    left = found._wait("images/a", "abc", 50, 1)
    assert [e.size for e in left or ()] == [20]
    assert session.answers == []


def test_interrupted_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "cancelled", lambda: True)
    with pytest.raises(Cancelled):
        store(grown(10))[0]._wait("images/a", "abc", 50, 1)


@pytest.mark.parametrize("error", [Missing("no .incoming/abc.1"), Refused("rename failed")])
def test_whose_file_was_taken_over_waits_longer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: StoreError
) -> None:
    found, source = store()[0], tmp_path / "source"
    source.write_bytes(b"x")
    waits: list[float] = []
    ends: list[StoreError | None] = [error, error, None]

    def wait(path: str, digest: str, size: int, patience: float) -> list[object]:
        waits.append(patience)
        return []

    def bring(*_: object) -> int:
        end = ends.pop(0)
        if end:
            raise end
        return 1

    for name, act in {"size": lambda _: None, "_prepare": lambda: None, "_wait": wait, "_bring": bring}.items():
        monkeypatch.setattr(found, name, act)
    listed: list[sftp._Entry] = []
    monkeypatch.setattr(found, "_list", lambda _: listed)
    assert found.upload(source, "images/a", hashlib.sha256(b"x").hexdigest()) == 1
    assert waits == [1, 4, 16]
    # It is there, so the error was about something else.
    ends.append(error)
    own = sftp._Entry("-", 1, 0.0, ".incoming/own")
    listed.append(own)
    monkeypatch.setattr(found, "_claim", lambda *_: (own.path, 0))
    with pytest.raises(type(error)):
        found.upload(source, "images/a", hashlib.sha256(b"x").hexdigest())


def test_times_of_listings() -> None:
    now = calendar.timegm((2026, 3, 1, 12, 0, 0))
    assert _when("Mar  1 11:59", now) == now - 60
    assert _when("Nov 24 16:00", now) == calendar.timegm((2025, 11, 24, 16, 0, 0))
    assert _when("Feb 29  2024", now) == calendar.timegm((2024, 2, 29, 0, 0, 0))
    # The server's clock may be ahead.
    assert _when("Mar  1 12:05", now) == now + 300
    # A leap day, looked at from a year that has none.
    assert _when("Feb 28 00:00", now) == calendar.timegm((2026, 2, 28, 0, 0, 0))


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Host key verification failed.", "ssh-keyscan host"),
        ("me@host: Permission denied (publickey).", "ssh-add"),
        ("ssh: connect to host host port 22: Connection refused", "is the server up"),
    ],
)
def test_what_to_do_about_ssh(said: str, hint: str) -> None:
    error = Session(Address.parse("sftp://me@host/srv"), Options())._lost(said)
    assert hint in (error.hint or "")
    assert error.details == said


def test_nobody_is_asked_and_no_host_is_trusted_at_first_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(Address.parse("sftp://me@[::1]:2222/srv"), Options(timeout=8, ssh_config=Path("/x/config")))
    calls: list[list[str]] = []

    def fake(words: list[str], **options: object) -> Result:
        calls.append(words)
        return Result(tuple(words), 0, "", None)

    monkeypatch.setattr(session, "_connect", lambda: None)
    monkeypatch.setattr(run, "run", fake)
    session.ask("pwd")
    (words,) = calls
    assert words[:4] == ["prlimit", f"--data={256 << 20}", "--", "sftp"] and words[-2:] == ["--", "[::1]"]
    settings = {words[i + 1] for i, word in enumerate(words) if word == "-o"}
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "User=me", "Port=2222", "ServerAliveInterval=2"} <= settings
    assert words[4:6] == ["-F", "/x/config"]


@pytest.mark.parametrize(
    "ending", [Result(("sftp",), 255, "Connection closed", None), CommandFailed("sftp took longer")]
)
def test_lost_connection(monkeypatch: pytest.MonkeyPatch, ending: Result | CommandFailed) -> None:
    session = Session(Address.parse("sftp://host/srv"), Options())

    def fake(words: list[str], **options: object) -> Result:
        if isinstance(ending, CommandFailed):
            raise ending
        return ending

    monkeypatch.setattr(session, "_connect", lambda: None)
    monkeypatch.setattr(run, "run", fake)
    with pytest.raises(StoreError, match="no connection") as caught:
        session.ask("pwd")
    assert "run it again" in (caught.value.hint or "")


@pytest.mark.parametrize(("there", "whole"), [(b"good", True), (b"goof", False), (b"good" * 1000, False)])
def test_what_is_read_back_ends_where_it_is_to(there: bytes, whole: bool, tmp_path: Path) -> None:
    """Who has the same account on the server may put anything in place of what was sent."""
    found, session = store()

    def ask(*lines: str, cwd: Path, size: int = 0, limit: int | None = None) -> Result:
        kept = there[:limit]
        (cwd / "got").write_bytes(kept)
        assert len(kept) < 10
        return Result(("sftp",), int(len(kept) < len(there)), "write: File too large", None)

    session.ask = ask  # type: ignore[assignment,method-assign]
    assert found._arrived(tmp_path, ".incoming/abc", 4, hashlib.sha256(b"good").hexdigest()) is whole
    assert not (tmp_path / "got").exists()


ENDLESS = r"""
import struct, sys

def text(data):
    return struct.pack("!I", len(data)) + data

folder = struct.pack("!IQIIIII", 15, 4096, 0, 0, 0o40755, 0, 0)
names = struct.pack("!I", 1000) + (text(b"x" * 200) + text(b"") + folder) * 1000
status = struct.pack("!I", 0) + text(b"") * 2
# SSH_FXP_ READDIR, LSTAT, STAT, FSTAT, OPENDIR, REALPATH: draft-ietf-secsh-filexfer-02.
answers = {12: (104, names), 7: (105, folder), 17: (105, folder), 8: (105, folder), 11: (102, text(b"h"))}
answers[16] = (104, struct.pack("!I", 1) + text(b"/x") * 2 + struct.pack("!I", 0))
while head := sys.stdin.buffer.read(4):
    asked = sys.stdin.buffer.read(*struct.unpack("!I", head))
    kind, said = answers.get(asked[0], (101, status))
    said = bytes([2, 0, 0, 0, 3]) if asked[0] == 1 else bytes([kind]) + asked[1:5] + said
    sys.stdout.buffer.write(text(said))
    sys.stdout.buffer.flush()
"""


@pytest.mark.real_process
def test_a_listing_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sftp took gigabytes in seconds, for as long as it was let: two minutes."""
    server = tmp_path / "server"
    server.write_text(f"#!{sys.executable}\n{ENDLESS}", encoding="utf-8")
    server.chmod(0o755)
    monkeypatch.setattr(openssh, "_MEMORY", 64 << 20)
    monkeypatch.setattr(Session, "_connect", lambda _: None)
    monkeypatch.setattr(Session, "_words", lambda *_: ["-D", str(server)])
    with pytest.raises(StoreError) as caught:
        SftpStore(Address.parse("sftp://host/~"), Options(timeout=30)).names("log")
    assert "out of memory" in (caught.value.details or "")
