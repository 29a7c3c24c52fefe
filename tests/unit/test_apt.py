from __future__ import annotations

from pathlib import Path

import pytest

from foundry import apt, config, run
from foundry.errors import ConfigError
from foundry.workspace import Workspace

URIS = """\
'http://mirror/pool/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_2.36-9+deb12u14_amd64.deb 275 SHA256:{a}
'http://mirror/pool/libllvm14_14.0.6-12_amd64.deb' libllvm14_1%3a14.0.6-12_amd64.deb 21 SHA256:{b}
""".format(a="a" * 64, b="b" * 64)
PRINTED = """\
'http://mirror/debian/dists/bookworm/InRelease' mirror_InRelease 0
'http://mirror/debian/dists/bookworm-updates/InRelease' mirror_InRelease 0
'http://mirror/debian-security/dists/bookworm-security/InRelease' mirror_InRelease 0
'http://elsewhere/dists/stable/InRelease' elsewhere_InRelease 0
"""


def settings(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "foundry.yml"
    path.write_text("images: {debian-12: {}}\n" + text)
    return config.load(path, locked=False)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The host's apt sources, to be changed by a test."""
    answer = [PRINTED]
    monkeypatch.setattr(run, "capture", lambda *args, **options: answer[0])
    return answer


def test_sources_default_to_the_hosts(tmp_path: Path, host: list[str]) -> None:
    assert [(s.uri, s.suite) for s in apt.sources(settings(tmp_path, ""), "bookworm")] == [
        ("http://mirror/debian", "bookworm"),
        ("http://mirror/debian", "bookworm-updates"),
        ("http://mirror/debian-security", "bookworm-security"),
    ]


def test_a_newer_hosts_mirror_serves_older_suites(
    tmp_path: Path, host: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host[0] = PRINTED.replace("bookworm", "trixie")
    monkeypatch.setattr(apt, "_host_suite", lambda: "trixie")
    assert apt.sources(settings(tmp_path, ""), "bookworm")[0].uri == "http://mirror/debian"


def test_settings_win_over_the_host(tmp_path: Path, host: list[str]) -> None:
    text = "archive: {mirror: 'http://m/d', security_mirror: 'http://m/s'}"
    assert [s.uri for s in apt.sources(settings(tmp_path, text), "bookworm")] == [
        "http://m/d",
        "http://m/d",
        "http://m/s",
    ]


def test_no_mirror_says_what_to_set(tmp_path: Path, host: list[str]) -> None:
    host[0] = ""
    with pytest.raises(ConfigError, match="no Debian mirror") as caught:
        apt.sources(settings(tmp_path, ""), "bookworm")
    assert "archive.mirror" in str(caught.value.hint)


def test_pgdg_is_signed_by_its_own_keyring_and_pinned(tmp_path: Path, host: list[str], workspace: Workspace) -> None:
    key = tmp_path / "pgdg.gpg"
    key.write_bytes(b"\x98key")
    text = f"postgresql: {{source: pgdg, uri: 'https://pgdg/apt', signed_by: {key}}}"
    archives = apt.sources(settings(tmp_path, text), "bookworm")
    assert archives[-1].line() == f"deb [signed-by={key}] https://pgdg/apt bookworm-pgdg main"
    apt.Resolver(workspace, archives)
    assert "Pin: release n=bookworm-pgdg" in (workspace.resolver / "etc/apt/preferences").read_text()


def test_uris_are_read_with_epochs_and_pluses(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = apt.Resolver(workspace, [])
    monkeypatch.setattr(resolver, "_apt", lambda *args, **options: URIS)
    libc, llvm = resolver.resolve(["x"], name="x")
    assert (libc.name, libc.version, libc.arch, libc.size) == ("libc6", "2.36-9+deb12u14", "amd64", 275)
    assert llvm.version == "1:14.0.6-12"
    assert llvm.filename == "libllvm14_1%3a14.0.6-12_amd64.deb"


def test_a_pinned_file_that_is_there_is_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "consul.deb"
    path.write_bytes(b"x")
    apt.fetch_file("http://nowhere", path, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")


MADISON = """\
  libllvm14 | 1:14.0.6-12 | http://mirror/debian bookworm/main amd64 Packages
     libc6 | 2.36-9+deb12u14 | http://mirror/debian bookworm/main amd64 Packages
     libc6 | 2.36-9+deb12u10 | http://mirror/debian-security bookworm-security/main amd64 Packages
"""


def test_recorded_versions_are_fetched_alone_and_the_others_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(run, "capture", lambda *args, **options: MADISON)
    monkeypatch.setattr(run, "run", lambda words, **options: asked.append(words))

    def package(name: str, version: str) -> apt.Package:
        return apt.Package(name, version, "amd64", apt.pool_name(name, version, "amd64"), "", "a" * 64, 1)

    wanted = [
        package("libc6", "2.36-9+deb12u10"),
        package("libc6", "2.36-9+deb12u9"),
        package("libllvm14", "1:14.0.6-12"),
    ]
    lacking = apt.Resolver(workspace, [], expired=True).obtain(wanted)
    assert lacking == [wanted[1]]
    expired = ["-o", "Acquire::Check-Valid-Until=false"]
    assert asked == [["apt-get", *expired, "download", "libc6=2.36-9+deb12u10", "libllvm14=1:14.0.6-12"]]
    assert wanted[2].filename == "libllvm14_1%3a14.0.6-12_amd64.deb"


def test_only_a_rebuild_takes_expired_indexes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def note(words: list[str], **options: object) -> run.Result:
        asked.append(words)
        return run.Result((), 0, "", None)

    monkeypatch.setattr(run, "run", note)
    apt.Resolver(workspace, []).update()
    assert asked == [["apt-get", "update", "--error-on=any"]]
