"""Latency as the page shows it: the table, the distribution, accuracy against it, and what it must be read with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gddctl.core.reports.latency import LatencyRow
from gddctl.report.colours import colour_by_model
from gddctl.report.inputs import RunFiles
from gddctl.report.timing import Timed, distribution_figure, scatter_figure
from gddctl.report.wording import milliseconds, model_title, percent

UNSTEADY = 0.1  # share of the mean, or between turns, above which the page warns; trtexec warns at 0.025 on an idle GPU


@dataclass(frozen=True)
class SpeedRow:
    """One line of the table."""

    title: str
    colour: str
    backend: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Speed:
    """Everything about latency."""

    columns: tuple[str, ...]
    rows: tuple[SpeedRow, ...]
    distribution: str | None  # SVG
    scatter: str | None  # SVG
    environment: tuple[tuple[str, str], ...]
    batch: int
    input_size: tuple[int, int]
    warning: str


def speed(run: RunFiles) -> Speed | None:
    """The section; None without a latency report."""
    if run.latency is None or not run.latency.rows:
        return None
    rows = run.latency.rows
    names = [_name(run, row) for row in rows]
    colours = colour_by_model([*run.scores, *names])
    titles = [
        f"{model_title(name)}" + (", PyTorch" if row.backend.startswith("torch") else "") for name, row in zip(names, rows, strict=True)
    ]
    drawn = [(title, colours[name]) for title, name in zip(titles, names, strict=True)]
    measured = [Timed(title, colour, samples) for (title, colour), samples in zip(drawn, run.samples, strict=False)]
    places = [(title, colour, row.p50_ms, row.miou) for (title, colour), row in zip(drawn, rows, strict=True) if row.miou is not None]
    spread = {timed.title: _p5_p95(timed) for timed in measured}
    levels = [
        (model_title(role, run.scores[role].condition), colours[role], run.scores[role].miou)
        for role in ("teacher", "baseline")
        if role in run.scores and role not in names
    ]
    return Speed(
        columns=("p50", "p90", "p95", "p99", "mean", "std", "min", "samples", "preprocess p50", "mIoU %"),
        rows=tuple(SpeedRow(title, colour, row.backend, _cells(row)) for (title, colour), row in zip(drawn, rows, strict=True)),
        distribution=distribution_figure(measured),
        scatter=scatter_figure(places, levels, spread),
        environment=_environment(rows),
        batch=rows[0].batch,
        input_size=rows[0].input_size,
        warning=_warning(rows, titles),
    )


def _name(run: RunFiles, row: LatencyRow) -> str:
    """The name that ``eval.json`` has for this very file; else the row's own."""
    return next((name for name, report in run.scores.items() if report.sha256 == row.sha256), row.model)


def _cells(row: LatencyRow) -> tuple[str, ...]:
    times = (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms, row.mean_ms, row.std_ms, row.min_ms)
    return (*map(milliseconds, times), str(row.samples), milliseconds(row.preprocess_p50_ms), percent(row.miou))


def _p5_p95(timed: Timed) -> tuple[float, float]:
    low, high = np.percentile(timed.samples, (5, 95))
    return float(low), float(high)


def _environment(rows: tuple[LatencyRow, ...]) -> tuple[tuple[str, str], ...]:
    """What the rows were measured with; values that differ between rows are all named."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for key, value in row.environment.items():
            if key not in ("backend", "provider", "nodes") and value not in found.setdefault(key, []):
                found[key].append(value)
    return tuple((key.replace("_", " "), " / ".join(values)) for key, values in found.items())


def _warning(rows: tuple[LatencyRow, ...], titles: list[str]) -> str:
    """One sentence about the rows that other work on the machine seems to have disturbed; "" when all are steady."""
    unsteady = []
    for row, title in zip(rows, titles, strict=True):
        low, high = min(row.rounds_p50_ms, default=0.0), max(row.rounds_p50_ms, default=0.0)
        if row.cv > UNSTEADY or high > (1 + UNSTEADY) * low:
            unsteady.append(f"{title} (samples ±{100 * row.cv:.0f} %, medians of turns {milliseconds(low)} to {milliseconds(high)} ms)")
    if not unsteady:
        return ""
    load = rows[0].environment.get("load_before")
    busy = f"; the load average was {load} before the start" if load else ""
    return f"Not steady, as if other work shared the machine{busy}: {'; '.join(unsteady)}."
