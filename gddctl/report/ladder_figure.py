"""The parity ladder as a figure: how many pixels each rung changes, on an axis of tens, beside the most that its gate allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gddctl.core.reports.parity import Rung
from gddctl.report.names import name
from gddctl.report.svg import BAD, FAINT, GOOD, INK, RULE, Frame, element, label, picture, text
from gddctl.report.wording import points

_WIDTH, _LEFT, _RIGHT, _ROW = 720, 270, 130, 40  # pixels
_LEAST = -6  # tens: a millionth of the pixels; fewer are drawn there
_TICKS = {-6: "≤ 0.0001 %", -4: "0.01 %", -2: "1 %", 0: "100 %"}


def ladder_figure(rungs: Sequence[Rung]) -> str | None:
    """One line per rung, top of the ladder first; None without rungs."""
    if not rungs:
        return None
    height = _ROW * len(rungs)
    frame = Frame(_LEFT, 12, _WIDTH - _LEFT - _RIGHT, height, (float(_LEAST), 0.0), (0.0, 1.0))
    drawn = [_axis(frame), *(_rung(frame, rung, frame.top + _ROW * number) for number, rung in enumerate(rungs))]
    said = "; ".join(f"{rung.title}: {100 * (1 - rung.agreement):.4f} %, {'passed' if rung.passed else 'failed'}" for rung in rungs)
    title = f"Pixels that a file answers otherwise than the one it was made from. {said}"
    return picture("".join(drawn), width=_WIDTH, height=height + 58, title=title)


def _axis(frame: Frame) -> str:
    bottom = frame.top + frame.height
    parts = []
    for power, words in _TICKS.items():
        x = frame.px(power)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=bottom + 4, stroke=RULE))
        parts.append(label(x, bottom + 17, words, anchor="middle", size=11, fill=FAINT))
    caption = "share of labelled pixels answered otherwise; ▾ is the most that the gate allows"
    return "".join([*parts, label(frame.left + frame.width, bottom + 35, caption, anchor="end", size=11, fill=FAINT)])


def _rung(frame: Frame, rung: Rung, top: float) -> str:
    colour, middle = GOOD if rung.passed else BAD, top + 17
    place = frame.px(_tens(1 - rung.agreement))
    hint = element("title", text(f"{rung.title}: {100 * rung.agreement:.4f} % of the pixels as {rung.reference}"))
    parts = [
        name(frame.left - 12, middle - 1, rung.title, _LEFT - 16, size=11.5, lines=1),
        name(frame.left - 12, middle + 12, f"under {rung.reference}", _LEFT - 16, size=10.5, lines=1, fill=FAINT, weight=None),
        element("line", x1=frame.left, x2=frame.left + frame.width, y1=top + _ROW - 4, y2=top + _ROW - 4, stroke=RULE),
        element("rect", hint, x=frame.left, y=middle - 5, width=max(place - frame.left, 2.0), height=10, fill=colour),
    ]
    if rung.limits.min_agreement is not None:
        x = frame.px(_tens(1 - rung.limits.min_agreement))
        parts.append(element("path", d=f"M{x - 5:.1f} {middle - 13:.1f}h10l-5 7z", fill=INK))
        parts.append(element("line", x1=x, x2=x, y1=middle - 8, y2=middle + 8, stroke=INK, stroke_width=1.5))
    verdict = f"{'✓ passed' if rung.passed else '✗ failed'}{', emulated' if rung.emulated else ''}"
    parts.append(label(frame.left + frame.width + 12, middle - 1, verdict, size=11.5, weight="600", fill=colour))
    parts.append(label(frame.left + frame.width + 12, middle + 12, f"mIoU {points(rung.miou_delta_points)} points", size=10.5, fill=FAINT))
    return "".join(parts)


def _tens(share: float) -> float:
    """A share 0..1 as its power of ten, within the axis."""
    return 0.0 if share >= 1 else max(float(_LEAST), math.log10(share)) if share > 0 else float(_LEAST)
