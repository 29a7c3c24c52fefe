"""What a folder of packages is made from, and what is taken out of it before dpkg is there to leave it out."""

from __future__ import annotations

import fnmatch
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from foundry import apt, archive, bootstrap, run
from foundry.config import Config, Image
from foundry.exclusions import rules
from foundry.workspace import Workspace

PROJECT = Path(__file__).parents[2]
PATHS = (
    "/usr/share/man/man1/ls.1.gz",
    "/usr/share/man/de/man1/ls.1.gz",
    "/usr/share/manual",
    "/usr/share/doc/ls/copyright",
    "/usr/share/doc/ls/README",
    "/usr/share/locale/locale.alias",
    "/usr/share/locale/de/ls.mo",
    "/etc/a b [c]",
    "/etc/left alone",
)
LIBC, NANO, GCC = (apt.Package(name, "1", "amd64", f"{name}.deb", "", "0", 1) for name in ("libc6", "nano", "gcc"))
RULES = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
)


def left_of(root: Path, rules: Sequence[str]) -> set[str]:
    """Make a tree of PATHS below root, do what mmdebstrap would be told to, and return what is there then."""
    for path in PATHS:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / path[1:]).touch()
    (root / "usr/share/empty").mkdir()
    for word in bootstrap._leave_out(rules):
        hook = word.removeprefix("--extract-hook=")
        subprocess.run(["sh", "-c", hook, "sh", str(root)], check=True)
    return {f"/{p.relative_to(root)}" for p in root.rglob("*") if not p.is_dir()}


def dpkg(path: str, rules: Sequence[str]) -> bool:
    """Whether dpkg would install a path: the last rule that matches decides."""
    kinds = [rule.startswith("path-include") for rule in rules if fnmatch.fnmatchcase(path, rule.partition("=")[2])]
    return kinds[-1] if kinds else True


@pytest.mark.real_process
@pytest.mark.parametrize(
    "rules",
    [RULES, RULES[::-1], (*RULES, "path-exclude=*"), (*RULES, "path-include=*"), ("path-exclude=/etc/a b [[]c]",), ()],
)
def test_what_is_left_is_what_dpkg_installs(tmp_path: Path, rules: Sequence[str]) -> None:
    assert left_of(tmp_path, rules) == {path for path in PATHS if dpkg(path, rules)}


@pytest.mark.real_process
def test_no_empty_folder_of_what_is_excluded_stays_and_every_other_does(tmp_path: Path) -> None:
    left_of(tmp_path, RULES)
    assert not (tmp_path / "usr/share/man/man1").exists()
    assert not (tmp_path / "usr/share/locale/de").exists()
    assert (tmp_path / "usr/share/empty").is_dir()


def test_rules_are_taken_in_the_order_of_their_files(tmp_path: Path) -> None:
    folder = tmp_path / bootstrap.DPKG
    folder.mkdir(parents=True)
    (folder / "b").write_text("path-include=/b\nforce-unsafe-io\n")
    (folder / "a").write_text("# a\npath-exclude=/a\n")
    assert bootstrap._rules(tmp_path) == ["path-exclude=/a", "path-include=/b"]


def test_the_users_rules_come_after_the_projects_own(tmp_path: Path) -> None:
    workspace = Workspace(PROJECT, tmp_path / "build", "test")
    bootstrap._prepare(Image(), workspace, tmp_path / "a")
    own = bootstrap._rules(tmp_path / "a")
    assert [p.name for p in (tmp_path / "a" / bootstrap.DPKG).iterdir()] == ["patroni-foundry"]
    wanted = rules(["jit", "/usr/share/nano/*"])
    bootstrap._prepare(Image(exclude=("jit", "/usr/share/nano/*")), workspace, tmp_path / "b")
    assert bootstrap._rules(tmp_path / "b") == [*own, *wanted]
    text = (tmp_path / "b" / bootstrap.DPKG / "patroni-foundry-exclude").read_text(encoding="utf-8")
    assert text.splitlines() == ["# images.NAME.exclude of foundry.yml: jit, /usr/share/nano/*", *wanted]


def repository(folder: Path, base: Sequence[apt.Package], common: Sequence[apt.Package]) -> archive.Archive:
    return archive.Archive(folder, folder / "key.gpg", tuple(base), (LIBC, GCC), None, "key", (), tuple(common))


def test_two_images_share_what_is_common_to_them(tmp_path: Path) -> None:
    workspace, config = Workspace(PROJECT, tmp_path / "build", "test"), Config(images={"x": Image()})
    plain, more = Image(), Image(packages=("nano",))
    key = bootstrap.decide(config, plain, repository(tmp_path, [LIBC], [LIBC]), workspace).key
    over = repository(tmp_path, [LIBC, NANO], [LIBC])
    assert bootstrap.extra_names(more, over) == ("nano",)
    assert bootstrap.decide(config, more, over, workspace).key == key
    # With the further package apt has chosen others: nothing is common then.
    alone = repository(tmp_path, [LIBC, NANO], [LIBC, NANO])
    assert bootstrap.extra_names(more, alone) == ()
    assert bootstrap.decide(config, more, alone, workspace).key != key
    assert bootstrap.decide(config, Image(exclude=("jit",)), over, workspace).key != key


def test_apt_chooses_among_the_packages_of_its_set_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(run, "run", lambda words, **options: told.append((*words, (tmp_path / "pins").read_text())))
    over = repository(tmp_path, [LIBC, NANO], [LIBC])
    bootstrap.make(bootstrap.Tree("bookworm", ["libc6"], [LIBC]), tmp_path / "root", over, what="test")
    assert "--include=libc6" in told[0]
    assert told[0][-1] == "".join(f"Package: {n}\nPin: release *\nPin-Priority: -1\n\n" for n in ("gcc", "nano"))
    tree = bootstrap.Tree("bookworm", ["nano"], [LIBC, NANO], under=tmp_path / "under")
    bootstrap.make(tree, tmp_path / "root", over, what="test")
    assert not [word for word in told[1] if word.startswith("--include")]
    assert any(word.endswith(" install nano") for word in told[1])
    assert told[1][-1] == "Package: gcc\nPin: release *\nPin-Priority: -1\n\n"
    assert not (tmp_path / "pins").exists()
