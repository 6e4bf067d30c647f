"""What a comparison would train, and for about how long; touches nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gddctl.core.artifact.card import is_bundle
from gddctl.core.config.compare import ViewsConfig
from gddctl.core.workspace import belongs
from gddctl.pipeline.compare.budget import Seconds, TimeOf
from gddctl.pipeline.compare.cell_files import read_cell
from gddctl.pipeline.compare.compare import Request
from gddctl.pipeline.compare.ground import common_digest, common_settings
from gddctl.pipeline.compare.labels import meanings, require_same_meanings
from gddctl.pipeline.compare.plan import PlannedCell, cell_folder, seeds_in
from gddctl.pipeline.compare.step_times import Recorded, read_recorded, under_budget
from gddctl.pipeline.compare.teachers import planned_teacher

_TRAINED = ("done", "trained")


@dataclass(frozen=True)
class Line:
    """One training."""

    label: str
    iterations: int | None  # None: known when step times are
    state: str  # done, trained (and to be scored), failed, begun, todo
    seconds: float | None  # that it may take; None: no step of it was ever timed

    def cells(self) -> tuple[str, str, str, str]:
        """For the terminal."""
        iterations = "after measuring" if self.iterations is None else str(self.iterations)
        return (
            self.label,
            iterations,
            self.state,
            "" if self.state in _TRAINED else "unknown" if self.seconds is None else _duration(self.seconds),
        )


@dataclass(frozen=True)
class Outlook:
    """All of them."""

    lines: tuple[Line, ...]

    @property
    def summary(self) -> str:
        """How many are left, and the sum of what is known."""
        left = [line for line in self.lines if line.state not in _TRAINED]
        trained = sum(line.state == "trained" for line in self.lines)
        known = [line.seconds for line in left if line.seconds is not None]
        time = (
            f"about {_duration(sum(known))}" + ("" if len(known) == len(left) else f" for {len(known)} of them")
            if known
            else "time unknown"
        )
        scoring = f"; {trained} that are trained will be scored" if trained else ""
        return f"{len(left)} of {len(self.lines)} trainings left, {time}, one after the other{scoring}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"cells": [asdict(line) for line in self.lines], "summary": self.summary}


def outlook(request: Request) -> Outlook:
    """Look at the folder and the settings.

    Raises:
        UsageError: the folder belongs to another comparison, has another budget, or a label in it means something else.
    """
    out, views = request.out, request.config.compare.views
    belongs(out, digest=common_digest(request.config), settings=common_settings(request.config))
    recorded = read_recorded(out)
    if request.budget is not None:
        recorded = under_budget(out, recorded, request.budget)
    lines = []
    plans = {each.name: planned_teacher(request.config, each, out) for each in request.methods}
    require_same_meanings(out, meanings(request.config, request.methods, plans), recorded)
    for plan in {plan.bundle: plan for plan in plans.values() if plan is not None}.values():
        if plan.job is not None:
            steps = plan.job.train.iterations
            lines.append(Line(plan.label, steps, "done" if plan.ready else "todo", None))
    iterations = _iterations(request, recorded)
    unknown = request.budget.seconds if isinstance(request.budget, Seconds) else None  # seconds that such a training takes
    for seed in request.seeds:
        for each in request.methods:
            if each.name not in iterations:
                lines.append(Line(f"{each.name} seed {seed}", None, "todo", unknown))
                continue
            cell = PlannedCell(each, seed, iterations[each.name])
            pace = _pace(request, recorded, each.name, cell.iterations)
            lines.append(
                Line(cell.label, cell.iterations, _state(cell.folder(out), views), None if pace is None else pace * cell.iterations)
            )
    return Outlook(tuple(lines))


def _state(folder: Path, views: ViewsConfig) -> str:
    if (read := read_cell(folder, views)) is not None:
        return read[0].state
    return "trained" if is_bundle(folder / "student") else "begun" if (folder / "checkpoints").is_dir() else "todo"


def _iterations(request: Request, recorded: Recorded | None) -> Mapping[str, int]:
    """Of the methods whose number of steps is known."""
    names, budget = [each.name for each in request.methods], request.budget
    if budget is None:
        return dict.fromkeys(names, request.config.train.iterations)
    known = {budget.method: budget.iterations} if isinstance(budget, TimeOf) else {}
    if recorded is not None and recorded.budget_seconds is not None:  # first times stand, whatever is measured later
        known |= {name: recorded.iterations(name) for name in names if recorded.error(name) is None}
    return known


def _pace(request: Request, recorded: Recorded | None, method: str, iterations: int) -> float | None:
    """Seconds per step: measured, else those of finished cells."""
    if recorded is not None and (timed := recorded.methods.get(method)) is not None and timed.seconds:
        return timed.median
    folders = [cell_folder(request.out, method, seed, iterations) for seed in seeds_in(request.out, method, iterations)]
    cells = [read_cell(folder, request.config.compare.views) or read_cell(folder) for folder in folders]  # whoever scored it
    known = [cell[0].step_seconds for cell in cells if cell is not None and cell[0].step_seconds is not None]
    return statistics.median(known) if known else None


def _duration(seconds: float) -> str:
    """Hours and minutes, or seconds.

    >>> _duration(7500), _duration(100), _duration(40)
    ('2 h 05 min', '2 min', '40 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
