"""Training curves: validation mIoU of all stages in one figure, and the loss with its terms for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gddctl.core.reports.assisted import BLIND_MIOU, WITH_PLANE, WITHOUT_PLANE
from gddctl.report.colours import OTHERS, STUDENT, colour_by_model
from gddctl.report.svg import INK, PAPER, Frame, element, label, picture, polyline, spread_labels, text
from gddctl.report.wording import percent

_NOT_TERMS = frozenset({"stage", "step", "val", "lr", "grad_norm", "images_per_s", "data_wait", "seconds", "eta_s"})
_TERM_COLOURS = (INK, STUDENT, *OTHERS)

Line = tuple[str, list[tuple[float, float]]]


def stages_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Stages in the order in which they appear."""
    return list(dict.fromkeys(record["stage"] for record in records))


def validation_figure(records: Sequence[Mapping[str, Any]]) -> str | None:
    """mIoU on the val split over iterations, one line per stage; a teacher that sees the label has two. None without validations."""
    lines: list[Line] = []
    for stage in stages_of(records):
        blind = _validations(records, stage, BLIND_MIOU)
        if places := _validations(records, stage, "miou"):
            lines.append((f"{stage} {WITH_PLANE}" if blind else stage, places))
        if blind:
            lines.append((f"{stage} {WITHOUT_PLANE}", blind))
    if not lines:
        return None
    colours = _colours_of([title for title, _ in lines])
    privileged = any(title.endswith(WITH_PLANE) for title, _ in lines)
    top = max(y for _, places in lines for _, y in places)
    frame = _frame(lines, 720, 300, right=270 if privileged else 150, y_top=min(100.0, top * 1.08 or 1.0))
    drawn = [frame.grid_y(), frame.axis_x("iterations")]
    ends = spread_labels([frame.py(places[-1][1]) for _, places in lines], 16, frame.top, frame.top + frame.height)
    for (stage, places), y in zip(lines, ends, strict=True):
        best = max(value for _, value in places)
        drawn.append(_line(frame, places, colours[stage], dots=True, unit=" %"))
        drawn.append(
            label(frame.px(places[-1][0]) + 8, y + 4, f"{stage} {percent(best / 100)}", fill=colours[stage], weight="600", over=True)
        )
    return picture("".join(drawn), width=720, height=300, title="mIoU on the validation split, in percent, over training iterations")


def _validations(records: Sequence[Mapping[str, Any]], stage: str, key: str) -> list[tuple[float, float]]:
    """(step, score in percent) of one stage."""
    return [
        (float(record["step"]), 100 * float(record["val"][key]))
        for record in records
        if record["stage"] == stage and isinstance(record.get("val"), dict) and record["val"].get(key) is not None
    ]


def _colours_of(titles: Sequence[str]) -> dict[str, str]:
    """By title; a stage keeps its colour, under whatever condition it was scored."""
    plain = {title: title.removesuffix(f" {WITH_PLANE}") for title in titles}
    found = colour_by_model(plain.values())
    return {title: found[name] for title, name in plain.items()}


def loss_figure(records: Sequence[Mapping[str, Any]], stage: str) -> str | None:
    """The loss and its terms over iterations; None without any."""
    lines = [(name, places) for name in _terms(records, stage) if (places := _values(records, stage, name))]
    if not lines:
        return None
    values = np.asarray([y for _, places in lines for _, y in places])
    frame = _frame(lines, 360, 240, right=14, y_top=float(np.percentile(values, 99)) * 1.1 or 1.0, y_low=min(0.0, float(values.min())))
    drawn, x = [frame.grid_y(), frame.axis_x("iterations")], frame.left
    for (name, places), colour in zip(lines, _cycled(len(lines)), strict=True):
        drawn.append(_line(frame, places, colour, width=2.0 if name == "loss" else 1.5))
        drawn.append(label(x, 16, name, fill=colour, weight="600"))
        x += 7.5 * len(name) + 14
    return picture("".join(drawn), width=360, height=240, title=f"{stage}: loss and its terms over training iterations")


def pace_of(records: Sequence[Mapping[str, Any]], stage: str) -> tuple[float | None, float | None]:
    """Median images per second, and share of time waiting for data (0..1), of one stage."""
    return tuple(  # type: ignore[return-value]  # two names, two values
        float(np.median(values)) if (values := [y for _, y in _values(records, stage, name)]) else None
        for name in ("images_per_s", "data_wait")
    )


def _terms(records: Sequence[Mapping[str, Any]], stage: str) -> list[str]:
    names = dict.fromkeys(name for record in records if record["stage"] == stage for name in record if _is_term(name))
    return sorted(names, key=lambda name: name != "loss")


def _is_term(name: str) -> bool:
    """A part of the loss; names with a slash are a method's diagnostics, of other magnitudes."""
    return name not in _NOT_TERMS and "/" not in name


def _values(records: Sequence[Mapping[str, Any]], stage: str, name: str) -> list[tuple[float, float]]:
    return [
        (float(record["step"]), float(record[name]))
        for record in records
        if record["stage"] == stage and isinstance(record.get(name), (int, float)) and np.isfinite(record[name])
    ]


def _cycled(count: int) -> list[str]:
    return [_TERM_COLOURS[index % len(_TERM_COLOURS)] for index in range(count)]


def _frame(lines: Sequence[Line], width: float, height: float, *, right: float, y_top: float, y_low: float = 0.0) -> Frame:
    last = max(x for _, places in lines for x, _ in places)
    return Frame(48, 26, width - 48 - right, height - 26 - 42, (0.0, last or 1.0), (y_low, max(y_top, y_low + 1e-9)))


def _line(
    frame: Frame, places: Sequence[tuple[float, float]], colour: str, *, width: float = 2.0, dots: bool = False, unit: str = ""
) -> str:
    top = frame.y[1]
    shown = [frame.at(x, min(y, top)) for x, y in places]  # a first loss far above the rest would flatten everything else
    parts = [polyline(shown, stroke=colour, width=width)] if len(shown) > 1 else []
    if dots or len(shown) == 1:
        for (cx, cy), (step, value) in zip(shown, places, strict=True):
            hint = element("title", text(f"{step:g}: {value:.2f}{unit}"))
            parts.append(element("circle", hint, cx=cx, cy=cy, r=3, fill=colour, stroke=PAPER))
    return "".join(parts)
