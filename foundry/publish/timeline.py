"""An SVG of a boot, to stand inside a page: one row for each thing that took time, over seconds since the kernel began.

Its positions are per cent and its letters have a fixed size, so that it can be read at the width of a phone as well: a
picture that is scaled to its page could not. Colours are the page's own (page.html.j2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape as escaped

from foundry.console import clean
from foundry.evidence import Boot, Unit

ROWS = 14
"""How many units are shown at most."""
ROW, BAR, AXIS, LETTERS = 36, 9, 26, 34
"""Pixels: height of a row, and of its bar; of the axis; and how many letters of a name fit a phone."""
_SHOWN = (".service", ".mount", ".socket", ".timer", ".path")
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Row:
    """A line of the picture: what, from when, for how long (milliseconds), and how it is drawn (a CSS class)."""

    name: str
    begin: int
    took: int
    style: str


def rows(boot: Boot) -> list[Row]:
    """What the picture of a boot shows, in order of time."""
    # An initramfs without systemd in it, as Debian's, says nothing of itself.
    found = [Row("kernel" if boot.initrd else "kernel and initramfs", 0, boot.kernel, "kernel")]
    if boot.initrd:
        found.append(Row("initrd", boot.kernel, boot.initrd, "initrd"))
    found.append(Row("userspace", boot.kernel + boot.initrd, boot.userspace, "userspace"))
    chain = set(boot.chain)
    # Shorter than this, a bar could not be seen.
    least = max(1, boot.total // 200)
    timed = [u for u in boot.units if u.name.endswith(_SHOWN) and u.took >= least]
    slowest = sorted(timed, key=lambda u: (u.name not in chain, -u.took, u.name))[:ROWS]
    found += [_row(u, chain) for u in sorted(slowest, key=lambda u: (u.begin, u.name))]
    moments = sorted(boot.milestones.items(), key=lambda item: (item[1], item[0]))
    return found + [Row(name, moment, 0, "moment") for name, moment in moments]


def _row(unit: Unit, chain: set[str]) -> Row:
    return Row(unit.name.removesuffix(".service"), unit.begin, unit.took, "waited" if unit.name in chain else "unit")


def svg(boot: Boot, title: str) -> str:
    """The picture of a boot as an <svg> element; title is what it says of itself to whoever cannot see it."""
    shown = rows(boot)
    # A little more than needed, so that the last moment is not cut off at the edge.
    end = int(max([boot.total, 50, *(r.begin + r.took for r in shown)]) * 1.02)
    height = AXIS + ROW * len(shown) + 4
    parts = [
        f'<svg class="timeline" width="100%" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        *_axis(end, height),
    ]
    for number, row in enumerate(shown):
        parts += _drawn(row, AXIS + ROW * number, end)
    return "\n".join([*parts, "</svg>"])


def _axis(end: int, height: int) -> Iterator[str]:
    step = _step(end / 1000)
    yield '<text class="tick" x="0" y="14">0 s</text>'
    for number in range(1, int(end / 1000 / step) + 1):
        at = _percent(number * step * 1000, end)
        yield f'<line class="grid" x1="{at}" x2="{at}" y1="{AXIS - 6}" y2="{height}"/>'
        # The last label would not fit beside the edge.
        if number * step * 1000 <= end * 0.94:
            yield f'<text class="tick" x="{at}" y="14" text-anchor="middle">{number * step:g} s</text>'


def _step(seconds: float) -> float:
    """Seconds between two lines, so that there are at most six of them."""
    power = 0.01
    while True:
        for step in _STEPS:
            if seconds / (step * power) <= 6:
                return step * power
        power *= 10


def _drawn(row: Row, y: int, end: int) -> Iterator[str]:
    name = row.name if len(row.name) <= LETTERS else f"{row.name[: LETTERS - 1]}…"
    told = f"at {_seconds(row.begin)}" if row.style == "moment" else _seconds(row.took)
    where = f"{row.name}: {told}" if row.style == "moment" else f"{row.name}: {told}, from {_seconds(row.begin)}"
    yield f'<g class="{row.style}"><title>{escape(where)}</title>'
    yield f'<text class="name" x="0" y="{y + 15}">{escape(name)}</text>'
    yield f'<text class="took" x="100%" y="{y + 15}" text-anchor="end">{told}</text>'
    top = y + 20
    yield f'<rect class="rail" x="0" y="{top}" width="100%" height="{BAR}" rx="2"/>'
    if row.style == "moment":
        yield f'<circle class="bar" cx="{_percent(row.begin, end)}" cy="{top + BAR / 2:g}" r="5.5"/>'
    else:
        width = max(row.took / end * 100, 0.5)
        yield f'<rect class="bar" x="{_percent(row.begin, end)}" y="{top}" width="{width:.2f}%" height="{BAR}" rx="2"/>'
    yield "</g>"


def escape(text: str) -> str:
    """text as text of an element, in one line."""
    return escaped(" ".join(clean(text).split()))


def _percent(moment: float, end: int) -> str:
    return f"{moment / end * 100:.2f}%"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 100 else f"{milliseconds} ms"
