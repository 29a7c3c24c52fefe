"""The picture of a boot: what it shows, where, and that it is a picture whatever units are called."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from foundry.evidence import Boot, Unit
from foundry.publish import timeline
from tests.unit.publish.made_versions import BOOT, NASTY


@pytest.mark.parametrize("text", [*NASTY, "a" * 100])
def test_a_picture_is_well_formed_whatever_units_are_called(text: str) -> None:
    units = (Unit(f"u{text}.mount", 0, 9000), Unit(f"u{text}.service", 1000, 9000))
    boot = replace(BOOT, units=units, milestones={f"m{text}": 5000})
    found = ElementTree.fromstring(timeline.svg(boot, text))
    assert {e.tag for e in found.iter()} <= {"svg", "title", "g", "text", "line", "rect", "circle"}
    names = [e.text or "" for e in found.iter("text") if e.get("class") == "name"]
    assert len(names) == 5 and max(map(len, names)) <= timeline.LETTERS


def test_the_picture_shows_what_took_time() -> None:
    assert timeline.rows(BOOT) == [
        timeline.Row("kernel and initramfs", 0, 8000, "kernel"),
        timeline.Row("userspace", 8000, 40000, "userspace"),
        timeline.Row("cloud-init", 10000, 10000, "waited"),
        timeline.Row("patroni", 40000, 5000, "waited"),
        timeline.Row("Patroni leads", 50000, 0, "moment"),
    ]
    with_initrd = timeline.rows(replace(BOOT, initrd=1000))
    assert [(r.name, r.begin) for r in with_initrd[:3]] == [("kernel", 0), ("initrd", 8000), ("userspace", 9000)]


def test_the_chain_comes_before_what_was_slower() -> None:
    others = tuple(Unit(f"slow-{n:02}.service", 9000 + n, 30000 + 2 * n) for n in range(40))
    found = [r.name for r in timeline.rows(replace(BOOT, units=(*BOOT.units, *others)))]
    assert len([name for name in found if name.startswith("slow")]) == timeline.ROWS - 2
    assert {"patroni", "cloud-init", "slow-39"} < set(found) and "slow-00" not in found


@pytest.mark.parametrize("boot", [BOOT, replace(BOOT, kernel=0, userspace=1, units=(), milestones={})])
def test_nothing_of_the_picture_is_outside_of_it(boot: Boot) -> None:
    found = ElementTree.fromstring(timeline.svg(boot, "t"))
    height = float(found.attrib["height"])
    for element in found.iter():
        left = [float(element.get(key, "0%").rstrip("%")) for key in ("x", "x1", "cx")]
        width = float(element.get("width", "0%").rstrip("%"))
        assert min(left) >= 0 and max(left) + (width if element.tag == "rect" else 0) <= 100.01
        assert 0 <= float(element.get("y", "0")) <= height


def test_bars_are_as_long_as_what_they_show() -> None:
    found = ElementTree.fromstring(timeline.svg(replace(BOOT, kernel=0, userspace=48000), "t"))
    bars = [(e.get("x"), e.get("width")) for e in found.iter("rect") if e.get("class") == "bar"]
    # 51 s across; what took no time can be seen nevertheless.
    assert bars == [("0.00%", "0.50%"), ("0.00%", "94.12%"), ("19.61%", "19.61%"), ("78.43%", "9.80%")]


@pytest.mark.parametrize(
    ("seconds", "step"), [(0.05, 0.01), (6, 1), (7, 2), (31, 10), (48, 10), (60, 10), (61, 20), (205, 50), (900, 200)]
)
def test_lines_at_round_seconds(seconds: float, step: float) -> None:
    assert timeline._step(seconds) == pytest.approx(step)
