"""Latency in figures: the distribution of the raw samples, and accuracy against the median."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.report.svg import FAINT, INK, RULE, Frame, element, label, picture, spread_labels, text
from gddctl.report.wording import milliseconds, percent

_DOTS = 300  # samples drawn per row; the box is made of all
_ROW = 58  # pixels
_LEFT = 215


@dataclass(frozen=True)
class Timed:
    """One row of a latency report, ready to draw."""

    title: str
    colour: str
    samples: NDArray[np.float64]  # ms


def distribution_figure(rows: Sequence[Timed]) -> str | None:
    """Every row's samples as dots under a box: box p25 to p75, line p50, whiskers p5 to p95, mark p99. None without samples."""
    if not rows or any(row.samples.size == 0 for row in rows):
        return None
    end = max(float(np.percentile(row.samples, 99)) for row in rows) * 1.12
    height = _ROW * len(rows) + 60
    frame = Frame(_LEFT, 10, 720 - _LEFT - 20, _ROW * len(rows), (0.0, end or 1.0), (0.0, 1.0))
    drawn = [frame.axis_x("milliseconds per call", grid=True)]
    for number, row in enumerate(rows):
        drawn.append(_row(frame, row, frame.top + _ROW * number))
    return picture("".join(drawn), width=720, height=height, title="Distribution of latency, raw samples, by model")


def scatter_figure(
    places: Sequence[tuple[str, str, float, float]], levels: Sequence[tuple[str, str, float]], spread: Mapping[str, tuple[float, float]]
) -> str | None:
    """mIoU against median latency.

    Args:
        places: (title, colour, p50 in ms, mIoU 0..1).
        levels: (title, colour, mIoU) of models that were not timed: drawn as horizontal lines.
        spread: (p5, p95) in ms by title, drawn as a bar where known.
    """
    if not places:
        return None
    scores = [100 * score for *_, score in places] + [100 * score for *_, score in levels]
    low, high = min(scores), max(scores)
    margin = max(1.0, 0.25 * (high - low))
    right = max(max(p50, spread.get(title, (0, 0))[1]) for title, _, p50, _ in places) * 1.08
    frame = Frame(52, 14, 720 - 52 - 250, 300, (0.0, right or 1.0), (max(0.0, low - margin), min(100.0, high + margin)))
    drawn = [frame.grid_y(), frame.axis_x("p50 milliseconds per call (left is faster)")]
    edge = frame.left + frame.width
    notes: list[tuple[float, float, str, str]] = []  # x, y, words, colour
    for title, colour, score in levels:
        y = frame.py(100 * score)
        drawn.append(element("line", x1=frame.left, x2=edge, y1=y, y2=y, stroke=colour, stroke_dasharray="5 4"))
        notes.append((edge, y, f"{title} {percent(score)} (not timed)", colour))
    for title, colour, p50, score in places:
        x, y = frame.at(p50, 100 * score)
        if title in spread:
            low_x, high_x = (frame.px(value) for value in spread[title])
            drawn.append(element("line", x1=low_x, x2=high_x, y1=y, y2=y, stroke=colour, stroke_width=3, stroke_opacity=0.35))
        hint = element("title", text(f"{title}: {percent(score)} % mIoU, {milliseconds(p50)} ms"))
        drawn.append(element("circle", hint, cx=x, cy=y, r=6, fill=colour, stroke="#fff", stroke_width=1.5))
        notes.append((x + 8, y, f"{title} {percent(score)}", colour))
    for (x, y, words, colour), place in zip(
        notes, spread_labels([y for _, y, _, _ in notes], 17, frame.top + 4, frame.top + frame.height), strict=True
    ):
        drawn.append(element("path", d=f"M{x:.1f} {y:.1f}L{edge + 10:.1f} {place:.1f}", stroke=colour, stroke_opacity=0.35, fill="none"))
        drawn.append(label(edge + 14, place + 4, words, fill=colour, weight="600", size=11.5))
    return picture("".join(drawn), width=720, height=356, title="Accuracy (mIoU, percent) against median latency (milliseconds)")


def _row(frame: Frame, row: Timed, top: float) -> str:
    p5, p25, p50, p75, p95, p99 = (float(value) for value in np.percentile(row.samples, (5, 25, 50, 75, 95, 99)))
    middle = top + 20
    inside = row.samples[row.samples <= frame.x[1]]
    beyond = row.samples.size - inside.size
    parts = [label(frame.left - 10, middle + 1, row.title, anchor="end", weight="600", fill=row.colour)]
    note = f"p50 {milliseconds(p50)}  p99 {milliseconds(p99)}"
    parts.append(label(frame.left - 10, middle + 16, note, anchor="end", size=10.5, fill=FAINT))
    parts.append(element("line", x1=frame.px(p5), x2=frame.px(p95), y1=middle, y2=middle, stroke=row.colour, stroke_width=1.5))
    width = max(frame.px(p75) - frame.px(p25), 1.0)
    parts.append(
        element("rect", x=frame.px(p25), y=middle - 9, width=width, height=18, fill="#fff", rx=2, stroke=row.colour, stroke_width=1.5)
    )
    parts.append(element("line", x1=frame.px(p50), x2=frame.px(p50), y1=middle - 9, y2=middle + 9, stroke=row.colour, stroke_width=3))
    parts.append(element("line", x1=frame.px(p99), x2=frame.px(p99), y1=middle - 6, y2=middle + 6, stroke=INK, stroke_width=1))
    parts.append(_dots(frame, inside, middle + 16, row.colour))
    if beyond:
        words = f"{beyond} slower, up to {milliseconds(float(row.samples.max()))} ms ›"
        parts.append(label(frame.left + frame.width, middle - 12, words, anchor="end", size=10, fill=FAINT))
    parts.append(element("line", x1=frame.left, x2=frame.left + frame.width, y1=top + _ROW - 6, y2=top + _ROW - 6, stroke=RULE))
    return "".join(parts)


def _dots(frame: Frame, samples: NDArray[np.float64], top: float, colour: str) -> str:
    """Evenly picked samples in the order they were taken, spread over a band 10 pixels high: drift shows as slant."""
    if not samples.size:
        return ""
    picked = samples[np.linspace(0, samples.size - 1, min(_DOTS, samples.size)).astype(int)]
    heights = top + 10 * np.arange(picked.size) / max(1, picked.size - 1)
    path = "".join(f"M{frame.px(float(value)):.1f} {y:.1f}h0" for value, y in zip(picked, heights, strict=True))
    return element("path", d=path, stroke=colour, stroke_width=2.2, stroke_linecap="round", stroke_opacity=0.35)
