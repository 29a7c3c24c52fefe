"""An SVG of what clients could write around a fault: acknowledged values a second over time, with the moments marked.

A plotting library would be the largest dependency of the build host, for bars and lines of one kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from foundry.lab import judge
from foundry.lab.history import History

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 78, 44
# A picture in a page cannot ask for the page's own colours: it brings both, and its own ground.
STYLE = """
.ground { fill: #ffffff } .text { fill: #24292f; font: 13px system-ui, sans-serif } .small { font-size: 11px }
.grid { stroke: #d0d7de; stroke-width: 1 } .flow { fill: #0969da; fill-opacity: .55; stroke: #0969da }
.mark { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3 } .word { fill: #cf222e }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117 } .text { fill: #e6edf3 } .grid { stroke: #30363d }
.flow { fill: #58a6ff; stroke: #58a6ff } .mark { stroke: #ff7b72 } .word { fill: #ff7b72 }
}
"""


def throughput(history: History, notes: Sequence[tuple[float, str]], title: str, *, width: float = 0.5) -> str:
    """The SVG of a history.

    notes: what was done when (time.monotonic()). width: seconds that each step of the curve counts over.
    """
    # What is left over at the end is no whole step, and would look like a fall.
    whole = max(1, int((history.end - history.begin) / width))
    rates = [count / width for count in judge.per_second(history, width)[:whole]]
    seconds = whole * width
    top = _rounded(max([*rates, 1.0]), (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10))

    def x(moment: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * moment / seconds

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rate / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        f'<text class="text" x="{LEFT}" y="22" font-weight="600">{escape(title)}</text>',
    ]
    for rate in (0.0, top / 2, top):
        parts.append(f'<path class="grid" d="M{LEFT} {y(rate):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(label(LEFT - 8, y(rate) + 4, f"{rate:g}", "text small", "end"))
    step = _rounded(seconds / 8, (1, 2, 5, 10))
    for number in range(int(seconds / step) + 1):
        parts.append(label(x(number * step), HEIGHT - BOTTOM + 18, f"{number * step:g}", "text small", "middle"))
    parts.append(label(WIDTH - RIGHT, HEIGHT - 8, "seconds", "text small", "end"))
    parts.append(label(LEFT, 40, "acknowledged writes a second", "text small"))
    corners = [f"V{y(rate):.1f}H{x((n + 1) * width):.1f}" for n, rate in enumerate(rates)]
    parts.append(f'<path class="flow" d="M{LEFT} {y(0):.1f}{"".join(corners)}V{y(0):.1f}Z"/>')
    for number, (moment, text) in enumerate(notes):
        at = x(moment - history.begin)
        parts.append(f'<path class="mark" d="M{at:.1f} {TOP - 4}V{HEIGHT - BOTTOM}"/>')
        # Towards the middle and in two rows, so that no words are cut off and neighbours do not overlap.
        right = at > WIDTH / 2
        row = TOP - 8 - 13 * (number % 2)
        parts.append(label(at + (-4 if right else 4), row, text, "text small word", "end" if right else "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def label(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    """A word at a place; kind: its classes of STYLE."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rounded(value: float, steps: Sequence[float]) -> float:
    """The smallest of steps (1 to 10), times a power of ten, that is no less than value."""
    power = 10.0 ** len(str(int(value))) / 10 if value >= 1 else 0.1
    return next(power * n for n in steps if power * n >= value)
