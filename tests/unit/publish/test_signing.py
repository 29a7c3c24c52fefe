"""Which key signs, and which one is believed: one in a file, one of the user's own gpg, a throw-away, a public one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from foundry import gpg
from foundry.config import Config
from foundry.errors import CommandFailed, ConfigError
from foundry.gpg import BadSignature
from foundry.publish import signing
from foundry.workspace import Workspace
from tests.unit.publish.gpg_home import USER, Home

pytestmark = pytest.mark.real_process

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    # Short: the agent's socket lies in it.
    found = Home(tmp_path_factory.mktemp("g") / "h")
    yield found
    found.end()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, tmp_path / "build", "run")


def settings(**publish: object) -> Config:
    return Config.model_validate({"images": {"debian-12": {}}, "publish": publish})


def signs(chosen: Config, workspace: Workspace, tmp_path: Path) -> gpg.Key:
    """What is signed by it is accepted by gpgv, with its public key alone."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    text = tmp_path / "text"
    text.write_text("what is signed\n")
    with signing.key(chosen, workspace, scratch) as key:
        keys = key.public(tmp_path / "keys.gpg")
        gpg.check(text, key.detach(text, tmp_path / "text.gpg"), keys)
        (tmp_path / "text.asc").write_text(key.clearsign("clear\n", tmp_path))
    assert gpg.opened(tmp_path / "text.asc", keys, tmp_path) == "clear\n"
    text.write_text("what is signeD\n")
    with pytest.raises(BadSignature, match="text: its signature does not hold"):
        gpg.check(text, tmp_path / "text.gpg", keys)
    return key


@pytest.mark.parametrize("secret", ["", "a b'c"])
def test_a_key_in_a_file(secret: str, home: Home, workspace: Workspace, tmp_path: Path) -> None:
    fingerprint = home.key(secret=secret)
    exported = tmp_path / "secret.asc"
    exported.write_text(home.gpg("--armor", "--export-secret-keys", fingerprint, secret=secret))
    given: dict[str, object] = {"key_file": str(exported)}
    if secret:
        (tmp_path / "passphrase").write_text(secret)
        given["passphrase_file"] = str(tmp_path / "passphrase")
    key = signs(settings(**given), workspace, tmp_path)
    assert (key.fingerprint, key.user) == (fingerprint, USER)
    assert not workspace.publisher.exists()


def test_a_key_in_a_file_with_another_passphrase(home: Home, workspace: Workspace, tmp_path: Path) -> None:
    fingerprint = home.key(secret="right")
    exported, passphrase = tmp_path / "secret.asc", tmp_path / "passphrase"
    exported.write_text(home.gpg("--armor", "--export-secret-keys", fingerprint, secret="right"))
    passphrase.write_text("wrong")
    chosen = settings(key_file=str(exported), passphrase_file=str(passphrase))
    with signing.key(chosen, workspace, tmp_path) as key, pytest.raises(CommandFailed) as caught:
        key.clearsign("x", tmp_path)
    assert f"signing with {fingerprint[-16:]}" in caught.value.brief
    assert "its passphrase known" in (caught.value.hint or "")


HELD = """
import sys, time
from pathlib import Path
from foundry import gpg
with gpg.imported(Path(sys.argv[1]), Path(sys.argv[2]), None) as key:
    key.detach(Path(sys.argv[1]), Path(sys.argv[3]))
    print(key.fingerprint, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_imported_key_is_in_memory_alone(how: signal.Signals, home: Home, tmp_path: Path) -> None:
    """Nothing of it is on the disk while it signs, nor after whatever ends the program; no process is left with it."""
    fingerprint = home.key()
    exported = tmp_path / "secret.asc"
    exported.write_text(home.gpg("--armor", "--export-secret-keys", fingerprint))
    own = tmp_path / "own"
    words = [sys.executable, "-c", HELD, exported, own, tmp_path / "signature"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=PROJECT) as program:
        assert program.stdout
        assert program.stdout.readline().strip() == fingerprint
        assert (tmp_path / "signature").stat().st_size > 0
        assert list(own.iterdir()) == []
        program.send_signal(how)
        program.wait(20)
    assert list(own.iterdir()) == []
    deadline = time.monotonic() + 10
    while (left := processes_with(str(own))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    assert str(own) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def processes_with(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                said = (entry / "cmdline").read_bytes().decode(errors="replace")
                found += [said] if word in said else []
    return found


@pytest.mark.parametrize("kind", ["no key", "a public key"])
def test_a_file_that_holds_no_secret_key(kind: str, home: Home, workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "key.asc"
    path.write_text("x" if kind == "no key" else home.gpg("--armor", "--export", home.key()))
    with (
        pytest.raises(ConfigError, match="no secret key"),
        signing.key(settings(key_file=str(path)), workspace, tmp_path),
    ):
        pass


def test_a_key_of_ones_own_gpg(
    home: Home, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = home.key()
    monkeypatch.setenv("GNUPGHOME", str(home.folder))
    key = signs(settings(key=fingerprint), workspace, tmp_path)
    assert key.fingerprint == fingerprint
    # Also by another name that gpg knows it by, if that is the only one.
    with signing.key(settings(key="release@example.org"), workspace, tmp_path) as found:
        assert found.fingerprint == fingerprint
    home.key("Release, next year <release@example.org>")
    with (
        pytest.raises(ConfigError, match=r"gpg has 2 secret keys of release@example\.org"),
        signing.key(settings(key="release@example.org"), workspace, tmp_path),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="gpg has no secret key of somebody"),
        signing.key(settings(key="somebody"), workspace, tmp_path),
    ):
        pass


def test_no_key(workspace: Workspace, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="no key to sign with") as caught,
        signing.key(settings(), workspace, tmp_path),
    ):
        pass
    assert "--set publish.key=throw-away" in (caught.value.hint or "")


def test_readers_believe_the_public_key_that_they_were_given(home: Home, workspace: Workspace, tmp_path: Path) -> None:
    given = tmp_path / "given.asc"
    given.write_text(home.gpg("--armor", "--export", home.key()))
    keys = signing.trusted(settings(public_key=str(given)), workspace, tmp_path)
    text = tmp_path / "text"
    text.write_text(home.gpg("--clearsign", "--output", "-", str(given)))
    assert "PGP PUBLIC KEY" in gpg.opened(text, keys, tmp_path)
    other = gpg.throw_away(tmp_path / "other", "Somebody else").public(tmp_path / "other.gpg")
    with pytest.raises(BadSignature):
        gpg.opened(text, other, tmp_path)
    assert not workspace.publisher.exists()


def test_no_agent_outlives_a_key(workspace: Workspace, tmp_path: Path) -> None:
    signs(settings(key="throw-away"), workspace, tmp_path)
    running = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "gpg-agent" in words and os.fspath(workspace.publisher) in words:
                running.append(words)
    assert running == []
