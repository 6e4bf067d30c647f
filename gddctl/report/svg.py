"""Drawing in SVG: elements, a plot area with axes, ticks at round numbers. Everything that is text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

INK, FAINT, RULE, PAPER = "var(--ink)", "var(--faint)", "var(--rule)", "var(--paper)"  # of the page's theme: see colours
GOOD, BAD, WARN = "var(--good)", "var(--bad)", "var(--warn)"


def element(name: str, content: str = "", **attributes: object) -> str:
    """One element; ``content`` is SVG already. Underscores in attribute names become hyphens; numbers lose needless digits.

    >>> element("text", text("a < b"), x=1.50, font_size=12)
    '<text x="1.5" font-size="12">a &lt; b</text>'
    """
    parts = [f'{key.rstrip("_").replace("_", "-")}="{_attribute(value)}"' for key, value in attributes.items() if value is not None]
    opening = " ".join([name, *parts])
    return f"<{opening}>{content}</{name}>" if content else f"<{opening}/>"


def text(value: str) -> str:
    """A string as SVG content."""
    return escape(value, quote=True)


def label(
    x: float,
    y: float,
    value: str,
    *,
    anchor: str = "start",
    size: float = 12,
    fill: str = INK,
    weight: str | None = None,
    over: bool = False,
) -> str:
    """A line of text; ``y`` is its baseline; ``over``: with a rim of paper, to be read over lines."""
    rim = {"stroke": PAPER, "stroke_width": 3, "stroke_linejoin": "round", "paint_order": "stroke"} if over else {}
    return element("text", text(value), x=x, y=y, text_anchor=anchor, font_size=size, fill=fill, font_weight=weight, **rim)


def polyline(places: Sequence[tuple[float, float]], *, stroke: str, width: float = 2.0, dash: str | None = None) -> str:
    """A line through ``places``."""
    path = "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in places)
    return element("path", d=path, fill="none", stroke=stroke, stroke_width=width, stroke_linejoin="round", stroke_dasharray=dash)


def picture(content: str, *, width: float, height: float, title: str) -> str:
    """A whole drawing that scales with its column."""
    return element(
        "svg",
        element("title", text(title)) + content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        role="img",
        aria_label=title,
        font_family="inherit",
    )


@dataclass(frozen=True)
class Frame:
    """A plot area in pixels and what it shows: ``x`` and ``y`` are (low, high) in the data's units."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel place of a data point."""
        return self.px(x), self.py(y)

    def px(self, x: float) -> float:
        """Horizontal pixel of a value."""
        return self.left + self.width * (x - self.x[0]) / (self.x[1] - self.x[0])

    def py(self, y: float) -> float:
        """Vertical pixel of a value; larger is higher."""
        return self.top + self.height * (1 - (y - self.y[0]) / (self.y[1] - self.y[0]))

    def grid_y(self, form: Callable[[float], str] = lambda value: f"{value:g}") -> str:
        """Horizontal rules with numbers left of the area."""
        parts = []
        for tick in ticks(*self.y):
            y = self.py(tick)
            parts.append(element("line", x1=self.left, x2=self.left + self.width, y1=y, y2=y, stroke=RULE))
            parts.append(label(self.left - 6, y + 4, form(tick), anchor="end", size=11, fill=FAINT))
        return "".join(parts)

    def axis_x(self, caption: str, *, grid: bool = False) -> str:
        """Numbers and a caption under the area."""
        bottom = self.top + self.height
        parts = [element("line", x1=self.left, x2=self.left + self.width, y1=bottom, y2=bottom, stroke=FAINT)]
        for tick in ticks(*self.x):
            x = self.px(tick)
            parts.append(element("line", x1=x, x2=x, y1=self.top if grid else bottom, y2=bottom + 4, stroke=RULE if grid else FAINT))
            parts.append(label(x, bottom + 17, f"{tick:g}", anchor="middle", size=11, fill=FAINT))
        return "".join([*parts, label(self.left + self.width, bottom + 33, caption, anchor="end", size=11, fill=FAINT)])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between ``low`` and ``high``, about ``about`` of them.

    >>> ticks(0, 100), ticks(0.0, 0.7)
    ([0.0, 20.0, 40.0, 60.0, 80.0, 100.0], [0.0, 0.2, 0.4, 0.6])
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + index) * step, 12) for index in range(count)]


def spread_labels(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Vertical places for labels near ``places``, at least ``gap`` apart, within [low, high] as long as they fit.

    >>> spread_labels([50, 50, 53], 10, 0, 100)
    [41.0, 51.0, 61.0]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    placed = [0.0] * len(places)
    clusters: list[list[int]] = []
    for index in order:
        clusters.append([index])
        while len(clusters) > 1 and _start(clusters[-1], places, gap, low, high) < _end(clusters[-2], places, gap, low, high) + gap:
            last = clusters.pop()
            clusters[-1] += last
    for cluster in clusters:
        start = _start(cluster, places, gap, low, high)
        for rank, index in enumerate(cluster):
            placed[index] = round(start + rank * gap, 2)
    return placed


def _start(cluster: Sequence[int], places: Sequence[float], gap: float, low: float, high: float) -> float:
    extent = gap * (len(cluster) - 1)
    centre = sum(places[index] for index in cluster) / len(cluster)
    return max(low, min(high - extent, centre - extent / 2))


def _end(cluster: Sequence[int], places: Sequence[float], gap: float, low: float, high: float) -> float:
    return _start(cluster, places, gap, low, high) + gap * (len(cluster) - 1)


def _attribute(value: object) -> str:
    return _number(value) if isinstance(value, float) else escape(str(value), quote=True)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"
