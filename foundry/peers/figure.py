"""An SVG of a run with peers: for each tool a row of bars, in a column for each thing that was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Protocol

from foundry.lab import plot

ROW, TOP, BOTTOM = 34, 66, 12
NAMES, GAP = 196, 14
_BAR = 18


class Measured(Protocol):
    """What is drawn of a tool; None is no bar."""

    @property
    def name(self) -> str: ...
    @property
    def build(self) -> float | None: ...
    @property
    def rebuild(self) -> float | None: ...
    @property
    def size(self) -> int | None: ...
    @property
    def boots(self) -> float | None: ...


_COLUMNS: Sequence[tuple[str, Callable[[Measured], float | None]]] = (
    ("build, s", lambda row: row.build),
    ("rebuild, s", lambda row: row.rebuild),
    ("image, MB", lambda row: row.size and row.size / 1e6),
    ("cloud-init, s", lambda row: row.boots),
)


def bars(rows: Sequence[Measured], title: str) -> str:
    """The SVG of rows. Each column has a scale of its own, from 0 to its largest value."""
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {plot.WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{plot.STYLE}</style>",
        f'<rect class="ground" width="{plot.WIDTH}" height="{height}" rx="6"/>',
        f'<text class="text" x="{plot.RIGHT}" y="22" font-weight="600">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        middle = TOP + ROW * number + ROW / 2
        parts.append(plot.label(NAMES - 8, middle + 4, row.name, "text small", "end"))
    width = (plot.WIDTH - NAMES - plot.RIGHT) / len(_COLUMNS)
    for number, (name, value) in enumerate(_COLUMNS):
        parts += _column(name, [value(row) for row in rows], NAMES + number * width, width - GAP)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _column(name: str, values: Sequence[float | None], left: float, width: float) -> list[str]:
    largest = max((value for value in values if value), default=1.0)
    parts = [plot.label(left, TOP - 14, name, "text small")]
    parts.append(f'<path class="grid" d="M{left:.1f} {TOP - 6}V{TOP + ROW * len(values)}"/>')
    for number, value in enumerate(values):
        middle = TOP + ROW * number + ROW / 2
        if value:
            # Room for the number of the longest one.
            long = (width - 34) * value / largest
            at = f'x="{left:.1f}" y="{middle - _BAR / 2:.1f}" width="{long:.1f}" height="{_BAR}"'
            parts.append(f'<rect class="flow" {at}/>')
            parts.append(plot.label(left + long + 4, middle + 4, f"{value:.0f}", "text small"))
        else:
            parts.append(plot.label(left + 4, middle + 4, "–", "text small"))
    return parts
