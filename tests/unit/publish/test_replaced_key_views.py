"""What gpgv, apt and sstream-query make of a store whose primary key is replaced, by whichever keys they know."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foundry import files, gpg
from foundry.gpg import BadSignature
from foundry.publish import aptrepo, consumer
from tests.unit.publish.changed_stores import days_later, renew
from tests.unit.publish.key_readers import Reader
from tests.unit.publish.publishing import NAME
from tests.unit.publish.replacing import Store

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents")]

SUITE = f"{NAME}-candidate"
SIGNED = f"apt      {SUITE} is signed, and has the packages of this version by name and sha256"


@pytest.fixture(autouse=True)
def views(store: Store) -> None:
    """What they read, as it was before the key was replaced."""
    renew(store.by_old)


def path(store: Store, name: str) -> Path:
    return store.by_old.store / name


def sources(store: Store) -> str:
    """What a machine was given that asks for it now."""
    return path(store, f"apt/{SUITE}.sources").read_text(encoding="utf-8")


def only(store: Store, key: str) -> str:
    """The same, for somebody who knows one key alone."""
    armored = store.home.gpg("--armor", "--export", key)
    return aptrepo.sources(f"file://{store.by_old.store}/apt", SUITE, armored)


def apt_takes(text: str, root: Path) -> bool:
    """Whether a machine with this .sources file and nothing else takes the suite."""
    for name in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True)
    files.write(root / "etc/sources.list.d/x.sources", text)
    files.write(
        root / "apt.conf",
        f'Dir::Etc "{root}/etc/"; Dir::State "{root}/state/"; Dir::Cache "{root}/cache/"; '
        f'Dir::Etc::sourcelist "/dev/null"; Dir::Etc::trustedparts "{root}/none/"; Dir::Etc::trusted "/dev/null"; '
        'APT::Sandbox::User "root"; Acquire::Languages "none"; APT::Architecture "amd64"; '
        # Some of these are from days to come.
        'Acquire::Check-Date "false";\n',
    )
    words = ["env", f"APT_CONFIG={root}/apt.conf", "apt-get", "update"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    taken = any(p.name.endswith("_Packages") for p in (root / "state/lists").iterdir())
    assert taken == (ended.returncode == 0), ended.stderr
    assert taken or "NO_PUBKEY" in ended.stderr, ended.stderr
    return taken


def gpgv(store: Store, keys: tuple[str, ...], *paths: Path) -> bool:
    """Whether gpgv takes a signed file, or a signature and its file, that knows these keys."""
    ring = store.folder / "-".join(["ring", *(key[-4:] for key in keys)])
    store.home.gpg("--output", str(ring), "--export", *keys)
    return subprocess.run(["gpgv", "--keyring", ring, *paths], capture_output=True, check=False).returncode == 0


def test_during_the_while_and_after_it(store: Store, tmp_path: Path) -> None:
    before = sources(store)
    store.replace()
    store.by_new.publish("2")
    during = sources(store)
    assert apt_takes(before, tmp_path / "a")
    assert apt_takes(only(store, store.new), tmp_path / "b")
    assert apt_takes(during, tmp_path / "c")
    sign_suite(store, store.old)
    assert apt_takes(during, tmp_path / "c2")
    store.by_new.publish("2")
    for key in (store.old, store.new):
        lines = whole(store, store.reader(key, key))
        assert SIGNED in lines
    index = path(store, "streams/v1/index.sjson")
    suite = path(store, f"apt/dists/{SUITE}")
    for keys, stream, apt in (
        ((store.old,), True, False),
        ((store.new,), False, False),
        ((store.old, store.new), True, True),
    ):
        assert gpgv(store, keys, index) is stream
        # gpgv itself wants to know all that have signed, unlike apt, which asks it.
        assert gpgv(store, keys, suite / "InRelease") is apt
        assert gpgv(store, keys, suite / "Release.gpg", suite / "Release") is apt
    version = path(store, f"images/{NAME}/2")
    assert gpgv(store, (store.new,), version / "SHA256SUMS.gpg", version / "SHA256SUMS")
    with days_later(91):
        renew(store.by_new)
        assert not apt_takes(before, tmp_path / "d")
        assert apt_takes(during, tmp_path / "e")
        after = sources(store)
    assert apt_takes(after, tmp_path / "f")
    assert after == only(store, store.new)
    assert gpgv(store, (store.new,), index)
    assert not gpgv(store, (store.old,), index)


def sign_suite(store: Store, key: str) -> None:
    """Let one key alone sign what apt reads."""
    index = path(store, f"images/{NAME}/1/Packages").read_bytes()
    made = aptrepo.view(index, NAME, "candidate", gpg.own(key), store.folder, date=datetime.now(UTC))
    for name, data in made.items():
        path(store, name).parent.mkdir(parents=True, exist_ok=True)
        path(store, name).write_bytes(data)


def whole(store: Store, reader: Reader) -> list[str]:
    """All that verify-release says."""
    settings, workspace = reader.project.settings, reader.project.workspace
    return consumer.verify_release(
        settings, workspace, str(store.by_old.store), reader.given, wanted="candidate", title=None
    )


def test_who_publishes_without_the_old_key_is_told_who_loses_it(store: Store, tmp_path: Path, said: list[str]) -> None:
    before = sources(store)
    store.replace()
    assert not [line for line in said if "apt refuses" in line]
    store.home.gpg("--delete-secret-keys", store.old)
    renew(store.by_new)
    assert [line for line in said if f"apt refuses what is signed from now on where it knows only {store.old}" in line]
    assert not apt_takes(before, tmp_path / "a")
    assert apt_takes(sources(store), tmp_path / "b")
    assert gpgv(store, (store.new,), path(store, "streams/v1/index.sjson"))


def test_an_old_key_that_was_revoked_is_given_to_nobody(store: Store, said: list[str]) -> None:
    store.replace()
    store.home.revoke(store.old)
    renew(store.by_new)
    assert sources(store) == only(store, store.new)
    assert not [line for line in said if "apt refuses" in line]


def test_what_the_old_key_alone_has_signed_for_apt_after_the_while(store: Store) -> None:
    store.replace()
    reader = store.reader("r", store.new)
    with days_later(91):
        renew(store.by_new)
        assert SIGNED in whole(store, reader)
        sign_suite(store, store.old)
        with pytest.raises(BadSignature, match=f"{SUITE}: InRelease: .* was replaced by another"):
            whole(store, reader)
