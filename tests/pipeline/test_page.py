"""The page of the image that was built, in a real browser: on a phone, on a desk, in the dark and on paper."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from foundry import evidence, files, image, verify
from foundry.publish import diff, page
from foundry.publish.version import File, Version
from foundry.workspace import Workspace
from tests.pipeline.browser import Browser, browser
from tests.pipeline.harness import ROOT
from tests.pipeline.published import proved
from tests.unit.publish.made_versions import NASTY

PHONE, DESK = (360, 740), (1280, 800)
SIZES = pytest.mark.parametrize(
    ("size", "scheme"),
    [(PHONE, "light"), (PHONE, "dark"), (DESK, "light"), (DESK, "dark")],
    ids=["phone", "phone in the dark", "desk", "desk in the dark"],
)
OTHERS = ("verdict.json", "verdict.xml", "console.log", "boot.json", "sbom.cdx.json", "sbom.spdx.json")
OTHERS += ("provenance.json", "changes.json", "changes.md", "Packages", "incus.tar.xz", "manifest.json")
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"
# A URL that is left of what a page may point at.
FOREIGN = "[...document.querySelectorAll('[href], [src]')].map(e => e.getAttribute('href') ?? e.getAttribute('src'))"


@dataclass(frozen=True)
class Shown:
    """What the page of the built image is made of."""

    version: Version
    verdict: verify.Verdict
    values: dict[str, Any]

    def page(self, **changes: Any) -> str:
        return page.render(changes.pop("version", self.version), **{**self.values, **changes})


@pytest.fixture(scope="module")
def shown(built: Path) -> Shown:
    """Of a real build, verified; `./inv build-image` has done that already, else it takes some minutes."""
    workspace = Workspace(ROOT, built, "page")
    release = image.newest(workspace, "debian-12")
    path = verify.verdict_path(release.main)
    proved(built)
    verdict, boots = verify.load(path), evidence.load(evidence.path(path, evidence.BOOT))
    assert verdict is not None and boots is not None
    manifest = dict(release.manifest)
    disks = tuple(File(f["name"], f["size"], f["sha256"]) for f in manifest["files"])
    # Their bytes are of no matter to the page that lists them.
    others = tuple(File(name, 12_345, files.sha256_text(name)) for name in OTHERS)
    version = Version(manifest["name"], manifest["version"], (*disks, *others), manifest)
    values = {
        "verdict": verdict,
        "boot": boots,
        "console": evidence.path(path, evidence.CONSOLE).read_text(encoding="utf-8"),
        "diff": diff.between(_older(version), version),
        "launching": (ROOT / "docs/launching.md").read_text(encoding="utf-8"),
        "licences": {p["name"]: "GPL-2+ and LGPL-2.1+ and BSD-3-clause" for p in manifest["packages"]},
        "fingerprint": "0123 4567 89AB CDEF 0123  4567 89AB CDEF 0123 4567",
    }
    return Shown(version, verdict, values)


def _older(version: Version) -> Version:
    manifest = copy.deepcopy(dict(version.manifest))
    manifest["version"] = "20200101-00000000"
    for package in manifest["packages"][::3]:
        package |= {"version": f"0~{package['version']}", "sha256": "0" * 64}
    manifest["packages"].pop()
    manifest["configuration"]["postgresql"]["version"] = 14
    return replace(version, version=manifest["version"], manifest=manifest)


@pytest.fixture(scope="module")
def window(playground: Path) -> Iterator[Browser]:
    with browser(playground / "browser") as found:
        yield found


@dataclass(frozen=True)
class View:
    """A page in the browser."""

    window: Browser
    url: str
    width: int


Look = Callable[..., Any]


@pytest.fixture
def look(window: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Look:
    """Shows a page, and keeps a picture of it in build/failed/page/ where the block fails."""

    @contextmanager
    def show(text: str, size: tuple[int, int], scheme: str = "light", media: str = "") -> Iterator[View]:
        path = tmp_path / "index.html"
        path.write_text(text, encoding="utf-8")
        window.open(path.as_uri(), *size, scheme=scheme, media=media)
        try:
            yield View(window, path.as_uri(), size[0])
        except BaseException:
            window.picture(Workspace.at(ROOT).failed / "page" / f"{request.node.name}.png")
            raise

    return show


def fits(view: View) -> None:
    """It is as wide as the window, quiet, and asked for nothing else."""
    # Not innerWidth: a phone makes that as wide as what overflows.
    assert view.window.value("document.documentElement.scrollWidth") <= view.width
    assert view.window.complaints() == []
    assert view.window.requests() == [view.url]


@SIZES
def test_it_fits(shown: Shown, look: Look, size: tuple[int, int], scheme: str) -> None:
    with look(shown.page(), size, scheme) as view:
        fits(view)
        view.window.value(OPEN_ALL)
        fits(view)
        ground = view.window.value("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


@SIZES
def test_the_index_of_a_store_fits(shown: Shown, look: Look, size: tuple[int, int], scheme: str) -> None:
    name, number = shown.version.image, shown.version.version
    row = page.Listed(number, datetime.now(UTC), shown.version.disk.size, len(shown.verdict.outcomes))
    text = page.index({name: [row] * 3}, {name: {"candidate": number, "stable": number}}, fingerprint="0123 " * 10)
    with look(text, size, scheme) as view:
        fits(view)
        assert number in view.window.value("document.body.innerText")


def test_every_check_is_on_it_and_seen(shown: Shown, look: Look) -> None:
    with look(shown.page(), PHONE) as view:
        view.window.value(OPEN_ALL)
        rows = "[...document.querySelectorAll('tr[data-check]')]"
        found = view.window.value(f"{rows}.map(r => [r.dataset.check, r.innerText, r.checkVisibility()])")
        assert len(found) > 50
        assert [name for name, _, _ in found] == [f"{o.phase} {o.name}" for o in shown.verdict.outcomes]
        for name, text, seen in found:
            assert seen and "passed" in text and text.strip().endswith(" s"), name


def test_what_it_says_can_be_searched(shown: Shown, look: Look) -> None:
    with look(shown.page(), DESK) as view:
        view.window.value(OPEN_ALL)
        text = view.window.value("document.body.innerText")
        for package in shown.version.manifest["packages"]:
            assert package["name"] in text and package["version"] in text
        for words in ("Patroni leads", "PostgreSQL accepts connections", "Linux version", "qm importdisk", "14 → 15"):
            assert words in text, words
        assert shown.version.disk.sha256 in text


def test_both_boots_are_drawn(shown: Shown, look: Look) -> None:
    with look(shown.page(), PHONE) as view:
        pictures = "[...document.querySelectorAll('svg.timeline')]"
        assert view.window.value(f"{pictures}.length") == 2
        boxes = view.window.value(
            f"{pictures}.flatMap(s => [...s.querySelectorAll('g')]).map(g => ['.name', '.took'].map("
            "c => g.querySelector(c).getBoundingClientRect()).map(b => [b.left, b.right]))"
        )
        assert len(boxes) > 10
        # Names and times of a row neither run into each other nor out of the window.
        for (left, name_ends), (took_begins, right) in boxes:
            assert left >= 0 and name_ends + 4 < took_begins and right <= view.width
        bars = view.window.value(
            f"{pictures}.flatMap(s => [...s.querySelectorAll('.bar')]).map(b => b.getBBox().width)"
        )
        assert min(bars) >= 1


def test_its_parts_are_in_order(shown: Shown, look: Look) -> None:
    with look(shown.page(), DESK) as view:
        levels = view.window.value("[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        lost = "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash))"
        assert view.window.value(f"{lost}.map(a => a.hash)") == []
        assert view.window.value("[...document.querySelectorAll('table')].every(t => t.closest('.box'))")
        assert view.window.value("document.scripts.length") == 0


def test_on_paper(shown: Shown, look: Look) -> None:
    with look(shown.page(), (794, 1123), media="print") as view:
        fits(view)
        height = "e => e.getBoundingClientRect().height"
        hidden = view.window.value(f"[...document.querySelectorAll('nav, .console')].map({height})")
        assert hidden == [0, 0]
        # What is folded on a screen could not be unfolded on paper.
        checks = view.window.value("[...document.querySelectorAll('tr[data-check]')].map(e => e.checkVisibility())")
        assert len(checks) == len(shown.verdict.outcomes) and all(checks)
        box = view.window.value(
            "[...document.querySelectorAll('#packages .tall')].map(e => e.scrollHeight - e.clientHeight)"
        )
        assert max(box) <= 1


def test_nothing_in_it_becomes_markup(shown: Shown, look: Look) -> None:
    manifest = copy.deepcopy(dict(shown.version.manifest))
    added = [{"name": text, "version": text, "arch": text, "sha256": "0" * 64} for text in NASTY]
    manifest["packages"] = [*manifest["packages"], *added]
    whole = replace(shown.version, manifest=manifest, files=(*shown.version.files, File(NASTY[0], 1, NASTY[1])))
    outcomes = (*shown.verdict.outcomes, *(verify.Outcome(f"x::{t}", "rebooted", "failed", 0.1, t) for t in NASTY))
    text = shown.page(
        version=whole,
        verdict=replace(shown.verdict, outcomes=outcomes),
        console="\n".join(NASTY),
        licences={t: t for t in NASTY},
        fingerprint=NASTY[1],
    )
    count = "document.querySelectorAll('script, img, iframe, object, form, input, [onmouseover], [onfocus]').length"
    with look(text, PHONE) as view:
        fits(view)
        assert view.window.value(count) == 0
        view.window.value(OPEN_ALL)
        assert view.window.value("document.querySelector('.console pre').innerText").startswith(NASTY[0])
        links = view.window.value(FOREIGN)
        assert [link for link in links if not link.startswith(("#", "./", "../../../", "data:,"))] == []
