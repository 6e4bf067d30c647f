"""Latency as distributions: every row's raw samples with their density, and the tail by percentile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.report.names import name
from gddctl.report.svg import FAINT, INK, PAPER, RULE, Frame, element, label, picture, polyline, spread_labels
from gddctl.report.wording import milliseconds

_DOTS = 300  # samples drawn per row; box and density are made of all
_ROW = 66  # pixels
_LEFT = 215
_WIDTH, _LABELS = 720, 250
_BINS = 120  # of a density; two thirds of a kernel's width each
_MOST_LINES = 12  # of the figure of the tail: more names than this do not fit beside it
_TAIL = (0.0, 50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Timed:
    """One row of a latency report, ready to draw."""

    title: str
    colour: str
    samples: NDArray[np.float64]  # ms


def distribution_figure(rows: Sequence[Timed]) -> str | None:
    """Every row's samples: density, box p25 to p75 with line p50, whiskers p5 to p95, mark p99, and dots. None without samples."""
    if not rows or any(row.samples.size == 0 for row in rows):
        return None
    end = max(float(np.percentile(row.samples, 99)) for row in rows) * 1.12
    frame = Frame(_LEFT, 10, _WIDTH - _LEFT - 20, _ROW * len(rows), (0.0, end or 1.0), (0.0, 1.0))
    drawn = [frame.axis_x("milliseconds per call", grid=True)]
    drawn += [_row(frame, row, frame.top + _ROW * number) for number, row in enumerate(rows)]
    said = "; ".join(f"{row.title} p50 {_at(row, 50)}, p99 {_at(row, 99)} ms" for row in rows)
    title = f"Distribution of latency, raw samples, by model. {said}"
    return picture("".join(drawn), width=_WIDTH, height=_ROW * len(rows) + 60, title=title)


def tail_figure(rows: Sequence[Timed]) -> str | None:
    """Latency by percentile, the axis stretched where the slow calls are. None without samples, or with more rows than can be named."""
    if not 0 < len(rows) <= _MOST_LINES or any(row.samples.size < 2 for row in rows):
        return None
    most = max(_deepest(row) for row in rows)
    top = max(float(np.percentile(row.samples, most)) for row in rows)
    frame = Frame(52, 20, _WIDTH - 52 - _LABELS, max(250, 17 * len(rows)), (0.0, _stretch(most)), (0.0, top * 1.06 or 1.0))
    drawn = [frame.grid_y(), label(frame.left, 12, "milliseconds per call", size=11, fill=FAINT), _percentile_axis(frame, most)]
    ends = []
    for row in rows:
        shares = np.unique(np.concatenate([np.linspace(0, 99, 60), 100 - np.logspace(0, np.log10(100 - _deepest(row)), 40)]))
        values = np.percentile(row.samples, shares)
        places = [frame.at(_stretch(float(share)), float(value)) for share, value in zip(shares, values, strict=True)]
        drawn.append(polyline(places, stroke=row.colour))
        ends.append(places[-1])
    spread = spread_labels([y for _, y in ends], 17, frame.top + 4, frame.top + frame.height)
    edge = frame.left + frame.width
    for row, (x, y), at in zip(rows, ends, spread, strict=True):
        drawn.append(element("path", d=f"M{x:.1f} {y:.1f}L{edge + 10:.1f} {at:.1f}", stroke=row.colour, stroke_opacity=0.35, fill="none"))
        drawn.append(name(edge + 14, at + 4, row.title, _LABELS - 18, anchor="start", fill=row.colour, size=11.5, lines=1))
    title = "Latency by percentile. " + "; ".join(
        f"{row.title}: p99 {_at(row, 99)}, slowest {milliseconds(float(row.samples.max()))} ms" for row in rows
    )
    return picture("".join(drawn), width=_WIDTH, height=frame.top + frame.height + 42, title=title)


def _percentile_axis(frame: Frame, most: float) -> str:
    bottom = frame.top + frame.height
    parts = [element("line", x1=frame.left, x2=frame.left + frame.width, y1=bottom, y2=bottom, stroke=FAINT)]
    for share in (share for share in _TAIL if share <= most):
        x = frame.px(_stretch(share))
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=bottom + 4, stroke=RULE))
        parts.append(label(x, bottom + 17, f"p{share:g}" if share else "", anchor="middle", size=11, fill=FAINT))
    return "".join([*parts, label(frame.left + frame.width, bottom + 33, "percentile of the calls", anchor="end", size=11, fill=FAINT)])


def _stretch(share: float) -> float:
    """Percent 0..100 to nines: 90 is 1, 99 is 2."""
    return -float(np.log10(1 - share / 100))


def _deepest(row: Timed) -> float:
    """The highest percentile that is not one single sample."""
    return min(99.9, max(50.0, 100 * (1 - 2 / row.samples.size)))


def _at(row: Timed, percentile: float) -> str:
    return milliseconds(float(np.percentile(row.samples, percentile)))


def _row(frame: Frame, row: Timed, top: float) -> str:
    p5, p25, p50, p75, p95, p99 = (float(value) for value in np.percentile(row.samples, (5, 25, 50, 75, 95, 99)))
    middle = top + 30
    inside = row.samples[row.samples <= frame.x[1]]
    beyond = row.samples.size - inside.size
    parts = [name(frame.left - 10, middle + 1, row.title, _LEFT - 14, fill=row.colour)]
    note = f"p50 {milliseconds(p50)}  p99 {milliseconds(p99)}"
    parts.append(label(frame.left - 10, middle + 15, note, anchor="end", size=10.5, fill=FAINT))
    parts.append(_density(frame, inside, middle - 9, row.colour))
    parts.append(element("line", x1=frame.px(p5), x2=frame.px(p95), y1=middle, y2=middle, stroke=row.colour, stroke_width=1.5))
    width = max(frame.px(p75) - frame.px(p25), 1.0)
    parts.append(
        element("rect", x=frame.px(p25), y=middle - 6, width=width, height=12, fill=PAPER, rx=2, stroke=row.colour, stroke_width=1.5)
    )
    parts.append(element("line", x1=frame.px(p50), x2=frame.px(p50), y1=middle - 6, y2=middle + 6, stroke=row.colour, stroke_width=3))
    parts.append(element("line", x1=frame.px(p99), x2=frame.px(p99), y1=middle - 6, y2=middle + 6, stroke=INK, stroke_width=1))
    parts.append(_dots(frame, inside, middle + 11, row.colour))
    if beyond:
        words = f"{beyond} slower, up to {milliseconds(float(row.samples.max()))} ms ›"
        parts.append(label(frame.left + frame.width, middle - 12, words, anchor="end", size=10, fill=FAINT))
    parts.append(element("line", x1=frame.left, x2=frame.left + frame.width, y1=top + _ROW - 6, y2=top + _ROW - 6, stroke=RULE))
    return "".join(parts)


def _density(frame: Frame, samples: NDArray[np.float64], base: float, colour: str) -> str:
    """Half a violin, 20 pixels at its highest: a Gaussian kernel by Silverman's rule, between the samples that are drawn."""
    low, high = float(samples.min(initial=0.0) if not samples.size else samples.min()), float(samples.max(initial=0.0))
    if samples.size < 10 or high <= low:
        return ""
    spread = min(float(samples.std()), float(np.subtract(*np.percentile(samples, (75, 25)))) / 1.349) or float(samples.std())
    width = max(0.9 * spread * samples.size ** (-0.2), (high - low) / _BINS)
    edge = 2.5 * width
    counts, edges = np.histogram(samples, bins=_BINS, range=(low - edge, high + edge))
    centres = (edges[:-1] + edges[1:]) / 2
    kernel = np.exp(-0.5 * ((centres[:, None] - centres[None, :]) / width) ** 2)
    density = kernel @ counts
    heights = 20 * density / density.max()
    places = [
        (min(max(frame.px(float(x)), frame.left), frame.left + frame.width), base - float(h)) for x, h in zip(centres, heights, strict=True)
    ]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in [(places[0][0], base), *places, (places[-1][0], base)]) + "Z"
    return element("path", d=path, fill=colour, fill_opacity=0.25, stroke=colour, stroke_width=0.75)


def _dots(frame: Frame, samples: NDArray[np.float64], top: float, colour: str) -> str:
    """Evenly picked samples in the order they were taken, spread over a band 10 pixels high: drift shows as slant."""
    if not samples.size:
        return ""
    picked = samples[np.linspace(0, samples.size - 1, min(_DOTS, samples.size)).astype(int)]
    heights = top + 10 * np.arange(picked.size) / max(1, picked.size - 1)
    path = "".join(f"M{frame.px(float(value)):.1f} {y:.1f}h0" for value, y in zip(picked, heights, strict=True))
    return element("path", d=path, stroke=colour, stroke_width=2.2, stroke_linecap="round", stroke_opacity=0.35)
