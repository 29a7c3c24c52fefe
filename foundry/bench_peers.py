"""What other tools take for an image of the same contents, beside ours: size, seconds, and whether it boots.

All of one run have the same packages from one local repository, so that the network is no part of it, and the same
processors. A peer that fails is a row that says why.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from foundry import apt, archive, build, console, files, image, log, run
from foundry.config import Config
from foundry.errors import Cancelled, FoundryError
from foundry.machine import Accelerator, kvm
from foundry.peers import PEERS, Peer, boot, plain, room, supply
from foundry.peers.supply import Supply
from foundry.workspace import Workspace

CUT_OFF = 10.0
"""A peer may take so many times our own cold build; then it is ended."""
SPACE_NEEDED = 20_000_000_000
OURS = "ours"
_RECIPES = Path(__file__).parent / "peers/recipes"
_BUILT = ("disk.raw", "disk.qcow2")


@dataclass(frozen=True)
class Row:
    """What one tool has shown: seconds and bytes, None where it did not come to that, and then why.

    again: what it does anew for one more file. boots: until cloud-init has finished, in seconds.
    """

    name: str
    build: float | None = None
    rebuild: float | None = None
    again: str = ""
    size: int | None = None
    boots: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Places:
    """Where a run works. cold, changed: our own builds', the second with one file of ours changed. folder: scratch."""

    cold: Workspace
    changed: Workspace
    folder: Path


def measure(settings: Config, name: str, places: Places, mmdebstrap: Callable[[], object]) -> list[Row]:
    """Build an image by our own way, by plain mmdebstrap, and by every peer; the first row is ours.

    name: of the image. mmdebstrap: the plain way. Raises what our own build raises, and Cancelled.
    """
    files.need_space(places.folder, SPACE_NEEDED, "benchmark")
    chosen = settings.images[name]
    given = supply.make(settings, chosen, places.cold, places.folder / "supply")
    ours, accelerator = _ours(settings, name, places)
    found = [ours, _plain(mmdebstrap)]
    with supply.served(given.folder) as port:
        common = _Run(settings, given, places, accelerator, port, CUT_OFF * (ours.build or 0.0))
        found += [_Trial(peer, common).row() for peer in PEERS]
    return found


def _timed(act: Callable[[], object]) -> float:
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def _ours(settings: Config, name: str, places: Places) -> tuple[Row, Accelerator]:
    """Our own row. Its packages are there already, as every peer's are."""
    built: list[image.Release] = []

    def make(workspace: Workspace) -> Callable[[], object]:
        run.keep_logs_in(workspace.logs)
        return lambda: built.append(
            build.build_image(settings, workspace, image=name, verify=False, offline=True).release
        )

    log.info("benchmark: ours")
    first = _timed(make(places.cold))
    disk = places.folder / "ours.qcow2"
    main = built[0].main
    size = boot.compress(main, disk) if main.suffix != ".qcow2" else Path(shutil.copy(main, disk)).stat().st_size
    second = _timed(make(places.changed))
    row = Row(OURS, first, second, "patroni-node, the machine it is installed in, formats", size)
    kernel = max(places.cold.stage("base").glob("*/vmlinuz"))
    accelerator = kvm.accelerator(settings.build.accelerator, kernel, None, places.cold)
    limit = float(settings.verify.boot_timeout_s)
    run.keep_logs_in(places.cold.logs)
    try:
        with log.stage("ours-boot", "for comparison"):
            seconds = boot.seconds(disk, "bios", accelerator, limit, places.folder / "boot-ours", places.cold)
        return replace(row, boots=seconds), accelerator
    except Cancelled:
        raise
    except FoundryError as error:
        return replace(row, why=f"boot: {_reason(error)}"), accelerator


def _plain(act: Callable[[], object]) -> Row:
    """The plain way twice: it has no cache."""
    row = Row("plain mmdebstrap", again="all", why="a tarball: no Patroni, no disk, no boot loader")
    try:
        row = replace(row, build=_timed(act))
        return replace(row, rebuild=_timed(act))
    except Cancelled:
        raise
    except FoundryError as error:
        return replace(row, why=_reason(error))


def _reason(error: FoundryError) -> str:
    """The error in one line."""
    details = [line for line in (error.details or "").splitlines() if line.strip()]
    return ": ".join([error.brief, *details[-1:]])


@dataclass(frozen=True)
class _Run:
    """What the peers of one run have in common. port: of the loopback, where the supply is. limit: of a build."""

    settings: Config
    given: Supply
    places: Places
    accelerator: Accelerator
    port: int
    limit: float


class _Trial:
    """One peer, which leaves nothing but its row."""

    def __init__(self, peer: Peer, common: _Run) -> None:
        self.peer, self.common = peer, common
        self.folder = common.places.folder / peer.recipe
        self.first, self.second = self.folder / "first.qcow2", self.folder / "second.qcow2"
        self.room: room.Room | None = None

    def row(self) -> Row:
        """Install the tool, build, boot, build again. What fails ends it (but for the boot), and the row says why."""
        found = Row(self.peer.name, again=self.peer.again)
        steps = {"install": self._install, "build": self._build, "boot": self._boot, "rebuild": self._rebuild}
        try:
            for title, step in steps.items():
                try:
                    with log.stage(f"{self.peer.recipe}-{title}", "for comparison"):
                        found = step(found)
                except Cancelled:
                    raise
                except (FoundryError, OSError) as error:
                    said = f"{title}: {_reason(error) if isinstance(error, FoundryError) else error}"
                    log.info(f"{self.peer.name}: {said}")
                    found = replace(found, why="; ".join(part for part in (found.why, said) if part))
                    if title != "boot":
                        break
            return found
        finally:
            run.run(["rm", "-rf", "--one-file-system", self.folder], name="rm", check=False, cleaning=True)

    def _install(self, row: Row) -> Row:
        peer, given = self.peer, self.common.given
        lines = [s.line() for s in apt.sources(self.common.settings, peer.suite)]
        place = room.make(self.folder, peer.suite, peer.packages, lines)
        if peer.wheel:
            room.pip(place, peer.wheel)
        recipe = place.work / "recipe"
        shutil.copytree(_RECIPES / peer.recipe, recipe)
        shutil.copytree(_RECIPES / "common", recipe, dirs_exist_ok=True)
        shutil.copyfile(given.key, place.work / "key.gpg")
        # debootstrap looks nowhere else.
        shutil.copyfile(given.key, place.root / "usr/share/keyrings/debian-archive-keyring.gpg")
        (place.work / "extra/etc").mkdir(parents=True)
        if peer.base:
            epoch = archive.epoch(given.archive, self.common.places.cold)
            plain.build(given, epoch, place.work / "plain.qcow2", self.common.places.cold)
        self.room = place
        return row

    def _make(self, target: Path) -> float:
        """Run the recipe; its disk, compressed, becomes target. Returns the seconds of both."""
        assert self.room is not None
        begin = time.monotonic()
        self.room.run(["sh", "recipe/make"], self._variables(), name="make", seconds=self.common.limit)
        built = [path for name in _BUILT if (path := self.room.work / "out" / name).exists()]
        if not built:
            raise FoundryError(f"it has left no {' or '.join(_BUILT)}")
        boot.compress(built[0], target)
        return time.monotonic() - begin

    def _variables(self) -> Mapping[str, str]:
        url = f"http://127.0.0.1:{self.common.port}"
        return {
            "HOST": "127.0.0.1",
            "PORT": str(self.common.port),
            "MIRROR": f"{url}/debian",
            "WHEELS": f"{url}/wheels",
            "SUITE": self.common.given.suite,
            "PACKAGES": " ".join(self.common.given.packages),
            "ACCELERATOR": self.common.accelerator,
        }

    def _build(self, row: Row) -> Row:
        seconds = self._make(self.first)
        return replace(row, build=seconds, size=self.first.stat().st_size)

    def _boot(self, row: Row) -> Row:
        common = self.common
        limit = float(common.settings.verify.boot_timeout_s)
        at = self.folder / "boot"
        return replace(
            row,
            boots=boot.seconds(self.first, self.peer.firmware, common.accelerator, limit, at, common.places.cold),
        )

    def _rebuild(self, row: Row) -> Row:
        assert self.room is not None
        files.write(self.room.work / "extra/etc/benchmark.conf", "changed = yes\n")
        return replace(row, rebuild=self._make(self.second))


def table(rows: Sequence[Row]) -> list[str]:
    """All rows for a person; ratios are to the first one, ours."""
    ours = rows[0]
    shown: list[Sequence[str]] = [("", "build", "", "rebuild", "", "image", "", "cloud-init", "", "boots")]
    for row in rows:
        cells = [
            *_pair(row.build, ours.build, "{:.1f} s"),
            *_pair(row.rebuild, ours.rebuild, "{:.1f} s"),
            *_pair(row.size and row.size / 1e6, ours.size and ours.size / 1e6, "{:.0f} MB"),
            *_pair(row.boots, ours.boots, "{:.1f} s"),
        ]
        shown.append((row.name, *cells, "yes" if row.boots else "no"))
    notes = [f"{row.name}: {row.why}" for row in rows if row.why]
    again = [f"{row.name}: {row.again}" for row in rows if row.rebuild is not None]
    return [*console.table(shown), "", *notes, "", "done again for a change of one file:", *(f"  {a}" for a in again)]


def _pair(value: float | None, ours: float | None, form: str) -> tuple[str, str]:
    if value is None:
        return f"{'-':>8}", f"{'-':>5}"
    return f"{form.format(value):>8}", f"{value / ours:5.2f}" if ours else f"{'-':>5}"


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """All rows as plain values."""
    return [asdict(row) for row in rows]
