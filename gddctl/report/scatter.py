"""Accuracy against latency, and which models nothing beats in both: the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gddctl.report.names import name
from gddctl.report.svg import FAINT, PAPER, Frame, element, label, picture, polyline, spread_labels, text
from gddctl.report.wording import milliseconds, percent

_WIDTH, _LABELS = 720, 270  # pixels; of the whole, and of the column of names
_GAP = 17  # pixels between names


@dataclass(frozen=True)
class Place:
    """One timed and scored model."""

    title: str
    colour: str
    p50_ms: float
    miou: float  # 0..1


def pareto_front(places: Sequence[Place]) -> tuple[Place, ...]:
    """Those that no other beats: none is faster and at least as accurate, none as fast and more accurate. Fastest first.

    >>> [place.title for place in pareto_front([Place("a", "", 1, 0.5), Place("b", "", 2, 0.5), Place("c", "", 3, 0.6)])]
    ['a', 'c']
    """
    front: list[Place] = []
    for place in sorted(places, key=lambda place: (place.p50_ms, -place.miou)):
        last = front[-1] if front else None
        if last is None or place.miou > last.miou or (place.p50_ms, place.miou) == (last.p50_ms, last.miou):
            front.append(place)
    return tuple(front)


def scatter_figure(
    places: Sequence[Place], levels: Sequence[tuple[str, str, float]], spread: Mapping[str, tuple[float, float]]
) -> str | None:
    """mIoU against median latency; filled: on the front, hollow: beaten by another. None without places.

    Args:
        places: what was timed and scored.
        levels: (title, colour, mIoU) of models that were not timed: drawn as horizontal lines.
        spread: (p5, p95) in ms by title, drawn as a bar where known.
    """
    if not places:
        return None
    frame = _frame(places, levels, spread)
    front = pareto_front(places)
    drawn = [
        frame.grid_y(),
        frame.axis_x("p50 milliseconds per call (left is faster)"),
        label(frame.left, 12, "mIoU, %", size=11, fill=FAINT),
    ]
    drawn.append(_front_line(frame, front))
    edge = frame.left + frame.width
    notes: list[tuple[float, float, str, str]] = []  # x, y, words, colour
    for title, colour, score in levels:
        y = frame.py(100 * score)
        drawn.append(element("line", x1=frame.left, x2=edge, y1=y, y2=y, stroke=colour, stroke_dasharray="5 4"))
        notes.append((edge, y, f"{title} {percent(score)} (not timed)", colour))
    for place in places:
        drawn.append(_dot(frame, place, place in front, spread.get(place.title)))
        x, y = frame.at(place.p50_ms, 100 * place.miou)
        notes.append((x + 8, y, f"{place.title} {percent(place.miou)}", place.colour))
    low, high = frame.top + 4, frame.top + frame.height
    for (x, y, words, colour), at in zip(notes, spread_labels([y for _, y, _, _ in notes], _GAP, low, high), strict=True):
        drawn.append(element("path", d=f"M{x:.1f} {y:.1f}L{edge + 10:.1f} {at:.1f}", stroke=colour, stroke_opacity=0.35, fill="none"))
        drawn.append(name(edge + 14, at + 4, words, _LABELS - 18, anchor="start", fill=colour, size=11.5, lines=1))
    said = "; ".join(f"{place.title} {percent(place.miou)} % at {milliseconds(place.p50_ms)} ms" for place in places)
    title = (
        f"Accuracy (mIoU, percent) against median latency (milliseconds). On the Pareto front: {', '.join(p.title for p in front)}. {said}"
    )
    return picture("".join(drawn), width=_WIDTH, height=frame.top + frame.height + 42, title=title)


def _frame(places: Sequence[Place], levels: Sequence[tuple[str, str, float]], spread: Mapping[str, tuple[float, float]]) -> Frame:
    scores = [100 * place.miou for place in places] + [100 * score for *_, score in levels]
    low, high = min(scores), max(scores)
    margin = max(1.0, 0.25 * (high - low))
    right = max(max(place.p50_ms, spread.get(place.title, (0, 0))[1]) for place in places) * 1.08
    height = max(300, _GAP * (len(places) + len(levels)))
    return Frame(52, 20, _WIDTH - 52 - _LABELS, height, (0.0, right or 1.0), (max(0.0, low - margin), min(100.0, high + margin)))


def _front_line(frame: Frame, front: Sequence[Place]) -> str:
    """Steps: along the line a reader sees the best accuracy that a time allows."""
    steps = [(frame.px(front[0].p50_ms), frame.top + frame.height)]
    for place in front:
        x, y = frame.at(place.p50_ms, 100 * place.miou)
        steps += [(x, steps[-1][1]), (x, y)]
    steps.append((frame.left + frame.width, steps[-1][1]))
    return polyline(steps, stroke=FAINT, width=1.5, dash="2 3")


def _dot(frame: Frame, place: Place, best: bool, spread: tuple[float, float] | None) -> str:
    x, y = frame.at(place.p50_ms, 100 * place.miou)
    parts = []
    if spread is not None:
        low, high = (frame.px(value) for value in spread)
        parts.append(element("line", x1=low, x2=high, y1=y, y2=y, stroke=place.colour, stroke_width=3, stroke_opacity=0.35))
    beaten = "" if best else ", beaten by another"
    hint = element("title", text(f"{place.title}: {percent(place.miou)} % mIoU, {milliseconds(place.p50_ms)} ms{beaten}"))
    parts.append(element("circle", hint, cx=x, cy=y, r=6, fill=place.colour if best else PAPER, stroke=place.colour, stroke_width=2))
    return "".join(parts)
