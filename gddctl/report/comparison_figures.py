"""Methods in figures: mIoU over iterations and over seconds with the range of the seeds, and paired differences with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gddctl.core.reports.comparison import REFERENCE, Arm, Comparison, MethodRow, Pair, Point
from gddctl.core.reports.comparison_words import names_of
from gddctl.report.colours import BASELINE, OTHERS, STUDENT
from gddctl.report.svg import BAD, FAINT, GOOD, INK, PAPER, Frame, element, label, picture, polyline, spread_labels, text
from gddctl.report.wording import percent, points

Over = Literal["iterations", "seconds"]

_COLOURS = (STUDENT, *OTHERS, INK)
_DASHES = (None, "7 4", "2 3", "9 3 2 3")
_BETTER, _WORSE, _OPEN = GOOD, BAD, FAINT
_ROW = 26  # pixels of a line of the forest plot
_WIDTH = 720


@dataclass(frozen=True)
class Mark:
    """How an arm is drawn: never by colour alone, every line also carries its name."""

    colour: str
    dash: str | None


@dataclass(frozen=True)
class MeanCurve:
    """One arm's validations over its seeds: those iterations at which every seed has one."""

    x: tuple[float, ...]  # iterations, or mean seconds
    mean: tuple[float, ...]  # mIoU in percent
    low: tuple[float, ...]
    high: tuple[float, ...]


def marks_of(comparison: Comparison) -> dict[Arm, Mark]:
    """A colour per method, other dashes for its other lengths; more methods than colours differ by dash too."""
    methods = list(dict.fromkeys(row.arm.method for row in comparison.rows if row.arm.method != REFERENCE))
    marks: dict[Arm, Mark] = {}
    for row in comparison.rows:
        method = row.arm.method
        turn, index = divmod(0 if method == REFERENCE else methods.index(method), len(_COLOURS))
        lengths = sum(arm.method == method for arm in marks)
        marks[row.arm] = Mark(BASELINE if method == REFERENCE else _COLOURS[index], _DASHES[(turn + lengths) % len(_DASHES)])
    return marks


def mean_curve(row: MethodRow, over: Over) -> MeanCurve | None:
    """Mean and range of a row's curves; None without a common iteration."""
    by_step: list[dict[int, Point]] = [{point[0]: point for point in curve} for _, curve in row.curves]
    steps = sorted(set.intersection(*(set(points) for points in by_step))) if by_step else []
    if not steps:
        return None
    taken = [[points[step] for points in by_step] for step in steps]
    scores = [[100 * score for _, _, score in column] for column in taken]
    return MeanCurve(
        x=tuple(map(float, steps)) if over == "iterations" else tuple(sum(s for _, s, _ in column) / len(column) for column in taken),
        mean=tuple(sum(column) / len(column) for column in scores),
        low=tuple(map(min, scores)),
        high=tuple(map(max, scores)),
    )


def curve_figure(comparison: Comparison, over: Over) -> str | None:
    """mIoU while training, one line per arm, a band from the lowest to the highest seed; None without curves."""
    drawn_rows = [(row.arm, curve) for row in comparison.rows if (curve := mean_curve(row, over)) is not None]
    if not drawn_rows:
        return None
    names, marks = names_of(comparison), marks_of(comparison)
    low = min(min(curve.low) for _, curve in drawn_rows)
    high = max(max(curve.high) for _, curve in drawn_rows)
    margin = max(0.5, 0.06 * (high - low))
    end = max(curve.x[-1] for _, curve in drawn_rows) or 1.0
    height = max(320, 17 * len(drawn_rows) + 80)
    frame = Frame(48, 14, _WIDTH - 48 - 210, height - 62, (0.0, end), (max(0.0, low - margin), min(100.0, high + margin)))
    drawn = [frame.grid_y(), frame.axis_x("iterations" if over == "iterations" else "seconds of training")]
    drawn += [_band(frame, curve, marks[arm]) for arm, curve in drawn_rows]
    drawn += [_mean(frame, curve, marks[arm]) for arm, curve in drawn_rows]
    ends = spread_labels([frame.py(curve.mean[-1]) for _, curve in drawn_rows], 17, frame.top + 4, frame.top + frame.height)
    edge = frame.left + frame.width
    for (arm, curve), y in zip(drawn_rows, ends, strict=True):
        x = frame.px(curve.x[-1]) + 5
        mark = marks[arm]
        way = f"M{x:.1f} {frame.py(curve.mean[-1]):.1f}L{edge + 8:.1f} {y:.1f}"
        drawn.append(element("path", d=way, stroke=mark.colour, stroke_opacity=0.35, fill="none"))
        drawn.append(polyline([(edge + 8, y), (edge + 30, y)], stroke=mark.colour, width=2.5, dash=mark.dash))
        drawn.append(label(edge + 35, y + 4, f"{names[arm]} {percent(curve.mean[-1] / 100)}", size=11.5))
    title = f"mIoU in percent over {over} of training, mean over the seeds of each method: " + ", ".join(
        f"{names[arm]} ends at {curve.mean[-1]:.2f}" for arm, curve in drawn_rows
    )
    return picture("".join(drawn), width=_WIDTH, height=height, title=title)


def forest_figure(comparison: Comparison) -> str | None:
    """Paired differences with their intervals, one line per pair; None without an interval.

    Against no distillation first; of the pairs between methods those with the one that stands first.
    """
    order = ("against none", "equal seconds", "between methods", "same method")
    leaders = {group[0].arm for group in comparison.groups()}
    shown = [pair for pair in comparison.pairs if pair.kind != "between methods" or {pair.first, pair.second} & leaders]
    pairs = sorted((pair for pair in shown if pair.low_points is not None), key=lambda pair: order.index(pair.kind))
    if not pairs:
        return None
    names = names_of(comparison)
    ends = [end for pair in pairs for end in (pair.low_points, pair.high_points, 0.0) if end is not None]
    margin = 0.06 * (max(ends) - min(ends)) or 0.5
    height = _ROW * len(pairs) + 58
    frame = Frame(215, 10, _WIDTH - 215 - 165, _ROW * len(pairs), (min(ends) - margin, max(ends) + margin), (0.0, 1.0))
    zero = frame.px(0.0)
    drawn = [frame.axis_x("points of mIoU, first minus second", grid=True)]
    drawn.append(element("line", x1=zero, x2=zero, y1=frame.top, y2=frame.top + frame.height, stroke=INK, stroke_width=1.5))
    for number, pair in enumerate(pairs):
        words = f"{names[pair.first]} − {names[pair.second]}"
        drawn.append(_forest_row(frame, comparison, pair, words, frame.top + _ROW * (number + 0.5)))
    title = "Paired differences of mIoU in points, with 95 % intervals: " + "; ".join(
        f"{names[pair.first]} minus {names[pair.second]} {points(pair.difference_points)}, "
        f"{points(pair.low_points)} to {points(pair.high_points)}, {comparison.outcome(pair)}"
        for pair in pairs
    )
    return picture("".join(drawn), width=_WIDTH, height=height, title=title)


def _forest_row(frame: Frame, comparison: Comparison, pair: Pair, words: str, y: float) -> str:
    """Filled where the two are told apart, hollow where not: the colour only repeats it."""
    outcome = comparison.outcome(pair)
    told = outcome in ("better", "worse")
    colour = _OPEN if not told else _BETTER if outcome == "better" else _WORSE
    low, high = frame.px(pair.low_points or 0.0), frame.px(pair.high_points or 0.0)
    size = min(12.0, 12.0 * 34 / max(1, len(words)))  # a long pair of names is written smaller, not cut
    ends = f"{points(pair.low_points)} to {points(pair.high_points)}"
    return "".join([
        label(frame.left - 8, y + 4, words, anchor="end", size=size),
        element("line", x1=low, x2=high, y1=y, y2=y, stroke=colour, stroke_width=2.5),
        *(element("line", x1=x, x2=x, y1=y - 5, y2=y + 5, stroke=colour, stroke_width=1.5) for x in (low, high)),
        element(
            "circle",
            element("title", text(f"{words}: {points(pair.difference_points)}, {ends}, {outcome}")),
            cx=frame.px(pair.difference_points), cy=y, r=5, fill=colour if told else PAPER, stroke=colour, stroke_width=2,
        ),
        label(frame.left + frame.width + 10, y + 4, points(pair.difference_points), size=11.5, weight="600" if told else None),
        label(frame.left + frame.width + 60, y + 4, ends, size=11, fill=FAINT),
    ])  # fmt: skip


def _band(frame: Frame, curve: MeanCurve, mark: Mark) -> str:
    if len(curve.x) < 2 or curve.low == curve.high:
        return ""
    there = [frame.at(x, y) for x, y in zip(curve.x, curve.high, strict=True)]
    back = [frame.at(x, y) for x, y in zip(reversed(curve.x), reversed(curve.low), strict=True)]
    outline = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in [*there, *back]) + "Z"
    return element("path", d=outline, fill=mark.colour, fill_opacity=0.13, stroke="none")


def _mean(frame: Frame, curve: MeanCurve, mark: Mark) -> str:
    places = [frame.at(x, y) for x, y in zip(curve.x, curve.mean, strict=True)]
    parts = [polyline(places, stroke=mark.colour, dash=mark.dash)] if len(places) > 1 else []
    for (cx, cy), x, mean, low, high in zip(places, curve.x, curve.mean, curve.low, curve.high, strict=True):
        hint = element("title", text(f"{x:g}: {mean:.2f} ({low:.2f} to {high:.2f})"))
        parts.append(element("circle", hint, cx=cx, cy=cy, r=2.5, fill=mark.colour, stroke=PAPER, stroke_width=0.75))
    return "".join(parts)
