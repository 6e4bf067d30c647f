"""Latency as a page shows it: the tables, the figures, and what they must be read with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.report.colours import colour_by_model
from gddctl.report.conditions import CONDITIONS, MACHINE, Column, Facts, shown
from gddctl.report.scatter import Place, pareto_front, scatter_figure
from gddctl.report.stages import TITLES, Stages, stages_figure, stages_of
from gddctl.report.timing import Timed, distribution_figure, tail_figure
from gddctl.report.titles import backend_title, names_of_rows, titles_of_rows
from gddctl.report.wording import MISSING, milliseconds, model_title, percent

UNSTEADY = 0.1  # share of the mean, or between turns, above which the page warns; trtexec warns at 0.025 on an idle GPU


@dataclass(frozen=True)
class SpeedRow:
    """One line of a table."""

    title: str
    colour: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class SpeedTable:
    """A table with a line per row of the report."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[SpeedRow, ...]


@dataclass(frozen=True)
class Speed:
    """Everything about latency."""

    one_at_a_time: bool  # whether any row is; calls that arrive by a schedule need other words
    tables: tuple[SpeedTable, ...]
    distribution: str | None  # SVG
    tail: str | None
    stages: str | None
    stages_table: SpeedTable | None
    stages_by: str  # how copies and computing were told apart
    scatter: str | None
    front: tuple[str, ...]  # titles of the Pareto front
    environment: tuple[tuple[str, str], ...]
    batch: str  # "1", or "1, 8"
    input_size: str  # "240 × 180"
    warnings: tuple[str, ...]
    skipped: tuple[str, ...]


def speed(latency: LatencyReport | None, samples: Sequence[NDArray[np.float64]], scores: Mapping[str, EvalReport]) -> Speed | None:
    """The section; None without rows.

    Args:
        latency: what was measured.
        samples: raw milliseconds, one array per row; empty where they are not at hand.
        scores: of the run, by model name; empty for a page of its own.
    """
    if latency is None or not latency.rows:
        return None
    rows = latency.rows
    names = names_of_rows(rows, scores)
    colours = colour_by_model([*scores, *names])
    lines = [_Line(row, title, colours[name]) for row, title, name in zip(rows, titles_of_rows(rows, names, scores), names, strict=True)]
    alone = [line for line in lines if line.row.load is None]
    measured = [Timed(line.title, line.colour, found) for line, found in zip(lines, samples, strict=False) if line.row.load is None]
    places = _places(alone)
    levels = [
        (model_title(role, scores[role].condition), colours[role], scores[role].miou)
        for role in ("teacher", "baseline")
        if role in scores and role not in names
    ]
    split = [stages_of(line.row, line.title, line.colour) for line in alone]
    return Speed(
        one_at_a_time=bool(alone),
        tables=tuple(
            filter(None, (_times(alone), _loads(lines), _facts("Conditions", CONDITIONS, lines), _facts("Machine", MACHINE, lines)))
        ),
        distribution=distribution_figure(measured),
        tail=tail_figure(measured),
        stages=stages_figure(split),
        stages_table=_stages_table(split),
        stages_by=", ".join(dict.fromkeys(row.split.by for row in rows if row.split is not None)),
        scatter=scatter_figure(places, levels, {timed.title: _p5_p95(timed) for timed in measured}),
        front=tuple(place.title for place in pareto_front(places)),
        environment=_environment(latency),
        batch=", ".join(dict.fromkeys(str(row.batch) for row in rows)),
        input_size=", ".join(dict.fromkeys(f"{row.input_size[1]} × {row.input_size[0]}" for row in rows)),
        warnings=tuple(filter(None, (_unsteady(alone), _not_settled(alone), _throttled(lines)))),
        skipped=latency.skipped,
    )


@dataclass(frozen=True)
class _Line:
    """A row and how it is shown."""

    row: LatencyRow
    title: str
    colour: str


def _places(lines: Sequence[_Line]) -> list[Place]:
    """Scored rows of the smallest batch: those of others do not stand on the same axis."""
    batch = min((line.row.batch for line in lines), default=1)
    return [
        Place(line.title, line.colour, line.row.p50_ms, line.row.miou)
        for line in lines
        if line.row.miou is not None and line.row.batch == batch
    ]


def _times(lines: Sequence[_Line]) -> SpeedTable | None:
    def cells(row: LatencyRow) -> tuple[str, ...]:
        times = (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms, row.mean_ms, row.std_ms, row.min_ms)
        rest = (f"{100 * row.cv:.1f}", str(row.samples), milliseconds(row.preprocess_p50_ms), f"{row.throughput:.1f}", percent(row.miou))
        return (backend_title(row.backend), *map(milliseconds, times), *rest)

    head = ("Backend", "p50", "p90", "p95", "p99", "mean", "std", "min", "CV %", "samples", "preprocess p50", "images/s", "mIoU %")
    return _table("Milliseconds, one call after another", head, [(line, cells(line.row)) for line in lines])


def _loads(lines: Sequence[_Line]) -> SpeedTable | None:
    """Calls that arrive by a schedule; their percentiles count from the arrival."""
    found = []
    for line in lines:
        row, load = line.row, line.row.load
        if load is None:
            continue
        bound = (
            MISSING
            if load.bound_ms is None
            else f"{milliseconds(load.bound_ms)}{' kept' if load.kept else ' broken' if load.kept is False else ''}"
        )
        how = "searched" if load.searched else "given"
        times = (load.service_p50_ms, row.p50_ms, row.p95_ms, row.p99_ms)
        cells = (load.arrival, f"{load.rate:.1f} ({how})", f"{load.throughput:.1f}", *map(milliseconds, times), bound, str(row.samples))
        found.append((line, (backend_title(row.backend), *cells)))
    head = ("Backend", "arrival", "calls/s", "images/s", "service p50", "p50", "p95", "p99", "bound on p99", "samples")
    return _table("Offered load, milliseconds from the arrival", head, found)


def _facts(caption: str, columns: Sequence[Column], lines: Sequence[_Line]) -> SpeedTable | None:
    """The columns of which anything is known; None where nothing is."""
    facts: Facts = shown(columns, [line.row for line in lines])
    return _table(caption, facts.columns, list(zip(lines, facts.rows, strict=True))) if facts.columns else None


def _stages_table(rows: Sequence[Stages]) -> SpeedTable | None:
    lines = tuple(SpeedRow(row.title, row.colour, row.cells) for row in rows)
    return SpeedTable("Milliseconds by stage, medians per batch", (*TITLES, "sum of these"), lines) if lines else None


def _table(caption: str, columns: Sequence[str], lines: Sequence[tuple[_Line, tuple[str, ...]]]) -> SpeedTable | None:
    rows = tuple(SpeedRow(line.title, line.colour, cells) for line, cells in lines)
    return SpeedTable(caption, tuple(columns), rows) if rows else None


def _p5_p95(timed: Timed) -> tuple[float, float]:
    low, high = np.percentile(timed.samples, (5, 95))
    return float(low), float(high)


def _environment(latency: LatencyReport) -> tuple[tuple[str, str], ...]:
    """What the rows were measured with, and what the power sensors cover."""
    found = latency.environment
    if latency.idle_power_w is not None:
        found["idle power"] = f"{latency.idle_power_w:.1f} W ({latency.idle_power_source})"
    if covers := dict.fromkeys(row.sensed.power_source for row in latency.rows if row.sensed is not None and row.sensed.power_source):
        found["power is of"] = " / ".join(covers)
    return tuple((key.replace("_", " "), value) for key, value in found.items())


def _unsteady(lines: Sequence[_Line]) -> str:
    """One sentence about the rows that other work on the machine seems to have disturbed; "" when all are steady."""
    found = []
    for row, title in ((line.row, line.title) for line in lines):
        low, high = min(row.rounds_p50_ms, default=0.0), max(row.rounds_p50_ms, default=0.0)
        if row.cv > UNSTEADY or high > (1 + UNSTEADY) * low:
            found.append(f"{title} (samples ±{100 * row.cv:.0f} %, medians of turns {milliseconds(low)} to {milliseconds(high)} ms)")
    if not found:
        return ""
    load = lines[0].row.environment.get("load_before")
    busy = f"; the load average was {load} before the start" if load else ""
    return f"Not steady, as if other work shared the machine{busy}: {'; '.join(found)}."


def _not_settled(lines: Sequence[_Line]) -> str:
    found = [line.title for line in lines if line.row.stable is False]
    return f"Warm-up ended before the median had settled: {', '.join(found)}." if found else ""


def _throttled(lines: Sequence[_Line]) -> str:
    found = [
        f"{line.title} ({', '.join(line.row.sensed.throttle)})"
        for line in lines
        if line.row.sensed is not None and line.row.sensed.throttle
    ]
    return f"The device held itself back while measured: {'; '.join(found)}." if found else ""
