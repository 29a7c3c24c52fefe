"""Peers: their rows, what fails, what is cut off, the table and the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foundry import apt, bench, bench_peers, build, config, run
from foundry.bench_peers import Places, Row
from foundry.errors import Cancelled, CommandFailed, FoundryError, GuestError
from foundry.machine import kvm
from foundry.peers import PEERS, Peer, boot, figure, room, supply
from foundry.peers.room import Room
from foundry.workspace import Workspace

PROJECT = Path(__file__).parents[2]
SPACE = "{http://www.w3.org/2000/svg}"
PEER = Peer("tool 1", "vmdb2", ("tool",), "all of it")


@pytest.fixture
def cfg() -> config.Config:
    return config.load(PROJECT / "foundry.yml")


class Host:
    """The commands of a run, faked: what a test sets fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[dict[str, Any]] = []
        self.extra: list[list[str]] = []
        self.broken: dict[str, FoundryError] = {}

    def make(self, folder: Path, *_: object) -> Room:
        self.fail("install")
        place = Room(folder / "root", folder / "work")
        (place.root / "usr/share/keyrings").mkdir(parents=True)
        place.work.mkdir()
        return place

    def fail(self, what: str) -> None:
        if what in self.broken:
            raise self.broken[what]

    def run(self, place: Room, words: list[str], environment: dict[str, str], **options: Any) -> None:
        self.made.append({"words": words, "environment": environment, **options})
        self.extra.append([p.name for p in (place.work / "extra").rglob("*") if p.is_file()])
        self.fail("build" if len(self.made) == 1 else "rebuild")
        (place.work / "out").mkdir(exist_ok=True)
        (place.work / "out/disk.raw").write_text("disk")

    def compress(self, source: Path, target: Path) -> int:
        target.write_bytes(b"." * 1000)
        return 1000

    def boots(self, *_: object) -> float:
        self.fail("boot")
        return 30.0


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setattr(room, "make", found.make)
    monkeypatch.setattr(Room, "run", lambda self, words, environment, **o: found.run(self, words, environment, **o))
    monkeypatch.setattr(boot, "compress", found.compress)
    monkeypatch.setattr(boot, "seconds", found.boots)
    monkeypatch.setattr(apt, "sources", lambda *_: [])
    monkeypatch.setattr(run, "run", lambda *_, **__: None)
    return found


def row(cfg: config.Config, workspace: Workspace, *, peer: Peer = PEER, limit: float = 100.0) -> Row:
    served = workspace.root / "supply"
    served.mkdir(exist_ok=True)
    (served / "key.gpg").write_text("key")
    given: Any = SimpleNamespace(folder=served, key=served / "key.gpg", suite="bookworm", packages=("a", "b"))
    places = Places(workspace, workspace, workspace.root)
    return bench_peers._Trial(peer, bench_peers._Run(cfg, given, places, "tcg", 8080, limit)).row()


def test_a_peer_builds_boots_and_builds_again_with_one_file_more(
    cfg: config.Config, workspace: Workspace, host: Host
) -> None:
    found = row(cfg, workspace)
    assert found.build is not None and found.rebuild is not None
    assert (found.size, found.boots, found.why, found.again) == (1000, 30.0, "", "all of it")
    assert host.extra == [[], ["benchmark.conf"]]
    told = host.made[0]["environment"]
    assert told["MIRROR"] == "http://127.0.0.1:8080/debian"
    assert told["PACKAGES"] == "a b"


@pytest.mark.parametrize(
    ("broken", "numbers", "steps"),
    [
        ("install", (False, False, False, False), 0),
        ("build", (False, False, False, False), 1),
        ("boot", (True, True, True, False), 2),
        ("rebuild", (True, False, True, True), 2),
    ],
)
def test_a_peer_that_fails_is_a_row_that_says_where_and_why(
    cfg: config.Config, workspace: Workspace, host: Host, broken: str, numbers: tuple[bool, ...], steps: int
) -> None:
    host.broken[broken] = CommandFailed("make exited 1", details="first\nlast output: no space")
    found = row(cfg, workspace)
    assert tuple(v is not None for v in (found.build, found.rebuild, found.size, found.boots)) == numbers
    assert found.why.endswith("make exited 1: last output: no space")
    assert found.why.startswith("install" if broken == "install" else f"{broken}: ")
    assert len(host.made) == steps


def test_a_recipe_that_leaves_no_disk_has_failed(
    cfg: config.Config, workspace: Workspace, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Room, "run", lambda *_, **__: None)
    assert "it has left no disk.raw or disk.qcow2" in row(cfg, workspace).why


def test_a_build_is_cut_off_at_its_limit(cfg: config.Config, workspace: Workspace, host: Host) -> None:
    host.broken["build"] = CommandFailed("make took longer than 1430 s")
    found = row(cfg, workspace, limit=1430.0)
    assert [made["seconds"] for made in host.made] == [1430.0]
    assert found.why == "build: make took longer than 1430 s"


def test_an_interrupt_is_no_row(cfg: config.Config, workspace: Workspace, host: Host) -> None:
    host.broken["boot"] = Cancelled("interrupted")
    with pytest.raises(Cancelled):
        row(cfg, workspace)


def measured(
    cfg: config.Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, plain: Callable[[], object]
) -> tuple[list[Row], list[float]]:
    limits: list[float] = []
    main = workspace.root / "main.qcow2"
    main.write_bytes(b"." * 10)
    kernel = workspace.stage("base") / "key/vmlinuz"
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    release = SimpleNamespace(release=SimpleNamespace(main=main))

    def trial(peer: Peer, common: bench_peers._Run) -> object:
        limits.append(common.limit)
        return SimpleNamespace(row=lambda: Row(peer.name))

    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(bench_peers, "_timed", lambda act: (act(), float(next(clock) + 100))[1])
    monkeypatch.setattr(bench_peers, "SPACE_NEEDED", 0)
    monkeypatch.setattr(bench_peers, "_Trial", trial)
    monkeypatch.setattr(build, "build_image", lambda *_, **__: release)
    monkeypatch.setattr(supply, "make", lambda *_: SimpleNamespace(folder=workspace.root))
    monkeypatch.setattr(kvm, "accelerator", lambda *_: "tcg")
    monkeypatch.setattr(boot, "seconds", lambda *_: 20.0)
    places = Places(workspace, workspace, workspace.root)
    (workspace.root / "boot-ours").mkdir(exist_ok=True)
    return bench_peers.measure(cfg, "debian-12", places, plain), limits


def test_ours_is_the_first_row_and_a_peer_may_take_ten_times_as_long(
    cfg: config.Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, limits = measured(cfg, workspace, monkeypatch, lambda: None)
    assert [r.name for r in rows] == ["ours", "plain mmdebstrap", *(p.name for p in PEERS)]
    assert (rows[0].build, rows[0].rebuild, rows[0].size, rows[0].boots) == (100.0, 200.0, 10, 20.0)
    assert set(limits) == {1000.0}


def test_a_plain_way_that_fails_is_a_row_too(
    cfg: config.Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise CommandFailed("mmdebstrap exited 1")

    rows, _ = measured(cfg, workspace, monkeypatch, fail)
    assert (rows[1].build, rows[1].why) == (None, "mmdebstrap exited 1")


ROWS = [
    Row("ours", 100.0, 40.0, "packages", 300_000_000, 30.0),
    Row("other", 250.0, 10.0, "disk", 450_000_000, 60.0),
    Row("broken", why="build: make exited 1"),
]


def test_the_table_has_ratios_to_ours_and_a_reason_for_what_is_missing() -> None:
    lines = bench_peers.table(ROWS)
    rows = [line.split() for line in lines]
    assert ["other", "250.0", "s", "2.50", "10.0", "s", "0.25", "450", "MB", "1.50", "60.0", "s", "2.00", "yes"] in rows
    assert ["broken", *["-"] * 8, "no"] in rows
    assert "broken: build: make exited 1" in lines
    assert "  other: disk" in lines
    assert [r["name"] for r in bench_peers.as_json(ROWS)] == ["ours", "other", "broken"]


def test_the_picture_has_a_bar_for_each_number() -> None:
    root = ET.fromstring(figure.bars(ROWS, "A & B"))
    words = [element.text for element in root.iter(f"{SPACE}text")]
    assert {"A & B", "ours", "other", "broken", "250", "450"} <= set(words)
    assert words.count("–") == 4
    assert len([e for e in root.iter(f"{SPACE}rect") if e.get("class") == "flow"]) == 8


def test_every_peer_has_a_recipe_and_says_what_it_does_again() -> None:
    for peer in PEERS:
        assert (bench_peers._RECIPES / peer.recipe / "make").is_file()
        assert peer.again


def test_peers_are_measured_by_name_alone(
    cfg: config.Config, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "peers", lambda *_: ["peers"])
    assert bench.benchmark(cfg, workspace, only="peers") == ["peers"]


def test_loop_devices_that_a_room_has_attached_are_taken_back_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, gone = tmp_path / "loops", []

    def fake(words: list[str], **options: Any) -> Any:
        assert options["cleaning"]
        if "--detach" in words:
            gone.append(words[-1])
        return SimpleNamespace(output="/dev/loop0  7 254:0\n/dev/loop1 8 254:0\n/dev/loop2 9 254:0\n")

    monkeypatch.setattr(run, "run", fake)

    def interrupted() -> None:
        with room.loops_end(record):
            record.write_text("/dev/loop1 8 254:0\n/dev/loop2 7 254:0\n")
            raise GuestError("interrupted")

    with pytest.raises(GuestError):
        interrupted()
    assert gone == ["/dev/loop1"]
    assert not record.exists()


def test_a_room_is_entered_with_its_own_variables_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setenv("SECRET", "of the host")
    monkeypatch.setattr(run, "run", lambda words, **_: seen.append(words))
    Room(tmp_path / "root", tmp_path / "work").run(["make"], {"SUITE": "bookworm"}, name="make", seconds=None)
    (words,) = seen
    assert words[0] == "unshare"
    assert words[-1] == "make"
    assert "SUITE=bookworm" in words
    assert not [word for word in words if "SECRET" in word]
