"""Where the time goes between a file and its mask: stages as stacked bars, and what was not measured told as that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gddctl.core.reports.latency import LatencyRow
from gddctl.report.names import name
from gddctl.report.svg import FAINT, INK, PAPER, RULE, Frame, element, label, picture, text
from gddctl.report.wording import MISSING, milliseconds

STAGES = ("decode", "preprocess", "host_to_device", "inference", "device_to_host", "postprocess")
TITLES = ("decode", "preprocess", "host to device", "inference", "device to host", "postprocess")
_COPIES = ("host_to_device", "device_to_host")
_COLOURS = ("var(--s4)", "var(--s0)", "var(--s3)", "var(--student)", "var(--s2)", "var(--s1)")
_WIDTH, _LEFT, _RIGHT, _ROW = 720, 215, 70, 46  # pixels
_LEGEND = 40


@dataclass(frozen=True)
class Stages:
    """Medians of one row's stages in milliseconds, in the order of STAGES; None: not measured."""

    title: str
    colour: str
    medians: tuple[float | None, ...]
    device: bool  # whether there is one to copy to and from

    @property
    def total(self) -> float:
        """Of what was measured: less than the whole way where a stage is missing."""
        return sum(value for value in self.medians if value is not None)

    @property
    def missing(self) -> tuple[str, ...]:
        """Stages that were not measured, in words; copies that never happen are none of them."""
        return tuple(
            title
            for name, title, value in zip(STAGES, TITLES, self.medians, strict=True)
            if value is None and (self.device or name not in _COPIES)
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table, in the order of STAGES, with the sum of what was measured."""
        none = [MISSING if self.device or name not in _COPIES else "no device" for name in STAGES]
        return (
            *(word if value is None else milliseconds(value) for word, value in zip(none, self.medians, strict=True)),
            milliseconds(self.total),
        )


def stages_of(row: LatencyRow, title: str, colour: str) -> Stages:
    """The row's split; a row from before there was one has its preprocessing and its call."""
    device = not row.backend.endswith("-cpu")
    if row.split is None:
        known = {"preprocess": row.preprocess_p50_ms, "inference": row.compute_ms}
        return Stages(title, colour, tuple(known.get(name) for name in STAGES), device)
    found = row.split.stages
    return Stages(title, colour, tuple(None if (span := found.get(name)) is None else span.p50_ms for name in STAGES), device)


def stages_figure(rows: Sequence[Stages]) -> str | None:
    """One bar per row, its stages one after another; None without rows."""
    rows = [row for row in rows if row.total > 0]
    if not rows:
        return None
    height = _ROW * len(rows)
    frame = Frame(_LEFT, _LEGEND, _WIDTH - _LEFT - _RIGHT, height, (0.0, max(row.total for row in rows) * 1.02), (0.0, 1.0))
    drawn = [_legend(), frame.axis_x("milliseconds per batch, medians of the stages", grid=True)]
    drawn += [_bar(frame, row, frame.top + _ROW * number) for number, row in enumerate(rows)]
    said = "; ".join(f"{row.title}: {', '.join(_words(row))}" for row in rows)
    return picture("".join(drawn), width=_WIDTH, height=_LEGEND + height + 42, title=f"Where the time goes, by stage. {said}")


def _words(row: Stages) -> list[str]:
    known = [f"{title} {milliseconds(value)} ms" for title, value in zip(TITLES, row.medians, strict=True) if value is not None]
    return [*known, *(f"{title} {MISSING}" for title in row.missing)]


def _legend() -> str:
    parts, x = [], 4.0
    for title, colour in zip(TITLES, _COLOURS, strict=True):
        parts.append(element("rect", x=x, y=6, width=11, height=11, fill=colour))
        parts.append(label(x + 16, 16, title, size=11.5))
        x += 34 + 6.6 * len(title)
    return "".join(parts)


def _bar(frame: Frame, row: Stages, top: float) -> str:
    y, left = top + 8, frame.left
    parts = [name(frame.left - 10, top + 22, row.title, _LEFT - 14, fill=row.colour)]
    for title, colour, value in zip(TITLES, _COLOURS, row.medians, strict=True):
        if value is None:
            continue
        width = frame.width * value / frame.x[1]
        hint = element("title", text(f"{row.title}, {title}: {milliseconds(value)} ms"))
        parts.append(element("rect", hint, x=left, y=y, width=max(width, 0.75), height=18, fill=colour))
        words = milliseconds(value)
        if width > 7 * len(words) + 6:
            parts.append(label(left + width / 2, y + 13, words, anchor="middle", size=10.5, fill=PAPER, weight="600"))
        left += width
    parts.append(label(left + 6, y + 13, milliseconds(row.total), size=11, fill=INK, weight="600"))
    if row.missing:
        parts.append(label(frame.left, y + 30, f"{MISSING}: {', '.join(row.missing)}", size=10, fill=FAINT))
    parts.append(element("line", x1=frame.left, x2=frame.left + frame.width, y1=top + _ROW - 2, y2=top + _ROW - 2, stroke=RULE))
    return "".join(parts)
