"""The picture of a failover."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from foundry.lab import plot
from tests.unit.lab.histories import failover, history

SPACE = "{http://www.w3.org/2000/svg}"


def test_it_is_an_svg_with_its_moments_marked_in_both_colours() -> None:
    text = plot.throughput(history(failover()), [(4.5, "leader <killed>"), (9.0, "back")], "Failover & more")
    root = ET.fromstring(text)
    words = [element.text for element in root.iter(f"{SPACE}text")]
    assert {"Failover & more", "leader <killed>", "back", "seconds"} <= set(words)
    assert len([e for e in root.iter(f"{SPACE}path") if e.get("class") == "mark"]) == 2
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_curve_falls_to_nothing_in_the_outage() -> None:
    text = plot.throughput(history(failover()), [], "", width=1.0)
    curve = re.search(r'class="flow" d="M[\d.]+ ([\d.]+)(.*?)Z"', text)
    assert curve
    heights = re.findall(r"V([\d.]+)H", curve[2])
    assert len(heights) == 10
    assert [n for n, height in enumerate(heights) if height == curve[1]] == [0, 5]


@pytest.mark.parametrize(
    ("value", "expected"), [(0.3, 0.5), (1, 1), (1.5, 2), (7, 10), (10, 10), (99, 100), (101, 200), (4999, 5000)]
)
def test_scales_end_at_round_numbers(value: float, expected: float) -> None:
    assert plot._rounded(value, (1, 2, 5, 10)) == pytest.approx(expected)
