"""A folder's step times: measured once, kept, and what they make of a budget of seconds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gddctl.core.errors import ArtifactError, RunFailed, UsageError
from gddctl.core.files import read_json, write_json
from gddctl.core.reports.comparison import REFERENCE, StepTime, StepTimes
from gddctl.pipeline.compare.budget import Budget, Seconds, TimeOf, budget_from_json, budget_to_json

STEP_TIMES = "step_times.json"
SCHEMA = 1


@dataclass(frozen=True)
class Timed:
    """One method: seconds per step by block, or why there are none."""

    seconds: tuple[float, ...]
    error: str | None = None
    scale: float = 1.0  # by which a later measurement was brought to the first one's pace, see :meth:`Recorded.joined`
    waited: tuple[float, ...] = ()  # of ``seconds``, for the next batch; empty in files from before it was measured
    out_of_memory: bool = False  # the error: beside the other methods

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Timed:
        """From JSON, as the record holds it or the measurement left it."""
        waited, out_of_memory = tuple(row.get("waited", ())), row.get("out_of_memory", False)
        return cls(tuple(row["seconds"]), row["error"], row.get("scale", 1.0), waited, out_of_memory)

    @property
    def median(self) -> float:
        """Seconds per step."""
        return self.scale * statistics.median(self.seconds)

    @property
    def data_wait(self) -> float | None:
        """Share of a step's seconds, 0..1, that pass waiting for a batch."""
        return sum(self.waited) / sum(self.seconds) if self.waited else None


@dataclass(frozen=True)
class Recorded:
    """``step_times.json``."""

    budget: Budget
    device: str
    threads: int
    blocks: int
    block_steps: int
    methods: Mapping[str, Timed]

    @property
    def budget_seconds(self) -> float | None:
        """What the budget comes to; None where it is the time of a method that has none."""
        if isinstance(self.budget, Seconds):
            return self.budget.seconds
        return None if self.error(self.budget.method) is not None else self.budget.iterations * self.methods[self.budget.method].median

    def iterations(self, method: str) -> int:
        """The budget in steps of ``method``, at least one.

        Raises:
            RunFailed: the budget is the time of a method that has none.
        """
        seconds = self.budget_seconds
        if isinstance(self.budget, TimeOf):
            name = self.budget.method
            if seconds is None:
                raise RunFailed(f"--budget {name}: {self.error(name)}", remedy="the same command measures it again; or give another budget")
            if method == name:
                return self.budget.iterations  # whatever rounding would make of it
        assert seconds is not None
        return max(1, int(seconds / self.methods[method].median))

    def error(self, method: str) -> str | None:
        """Why ``method`` has no time; None where it has one."""
        found = self.methods.get(method)
        return "its step was not measured" if found is None else found.error

    def joined(self, later: Mapping[str, Timed]) -> Recorded:
        """With methods measured later, beside the reference: its pace then and now says how the machine differed; first times stand."""
        scale = 1.0
        if (
            (now := later.get(REFERENCE)) is not None
            and now.seconds
            and (first := self.methods.get(REFERENCE)) is not None
            and first.seconds
        ):
            scale = first.median / now.median
        good = {name for name, timed in self.methods.items() if timed.error is None}
        added = {name: replace(timed, scale=scale) for name, timed in later.items() if name not in good}
        return replace(self, methods={**self.methods, **added})

    def missing(self, names: list[str]) -> list[str]:
        """Those of ``names`` without a time, with the reference among them where there are any."""
        lacking = [name for name in names if name not in self.methods or self.methods[name].error is not None]
        return [REFERENCE, *(name for name in lacking if name != REFERENCE)] if lacking else []

    def table(self) -> StepTimes:
        """For the report."""
        where = f"{self.device}, {self.threads} threads" if self.device == "cpu" else self.device
        how = (
            f"{self.blocks} rounds of {self.block_steps} steps each, in turns in one process, {where}; "
            "a warm-up round, and in each round the first steps after the loader's start, left out"
        )
        if any(timed.scale != 1 for timed in self.methods.values()):
            how += "; methods added later were measured beside no distillation and brought to its first pace"
        times = tuple(
            StepTime(name, timed.median, timed.scale * min(timed.seconds), timed.scale * max(timed.seconds), timed.data_wait)
            for name, timed in self.methods.items()
            if timed.seconds and timed.error is None
        )
        of = self.budget if isinstance(self.budget, TimeOf) else None
        return StepTimes(how, times, self.budget_seconds, None if of is None else f"{of.iterations} steps of {of.method}")


def read_recorded(out: Path) -> Recorded | None:
    """What the folder remembers; None where nothing was measured.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = out / STEP_TIMES
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        methods = {name: Timed.of(row) for name, row in value["methods"].items()}
        given: dict[str, Any] = {key: value[key] for key in ("device", "threads", "blocks", "block_steps")}
        return Recorded(budget_from_json(value), **given, methods=methods)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not readable as step times ({error!r})", remedy="restore it: cells were trained by it") from error


def write_recorded(out: Path, recorded: Recorded) -> None:
    """Keep ``recorded``."""
    rows = {name: {**asdict(timed), "median": timed.median if timed.seconds else None} for name, timed in recorded.methods.items()}
    given = {key: getattr(recorded, key) for key in ("device", "threads", "blocks", "block_steps")}
    budget = budget_to_json(recorded.budget, recorded.budget_seconds)
    write_json(out / STEP_TIMES, {"schema": SCHEMA, **budget, **given, "methods": rows})


def under_budget(out: Path, recorded: Recorded | None, budget: Budget) -> Recorded | None:
    """``recorded``, to go by ``budget``. A folder has one, from when it is known how long it is: before, no cell was trained by it.

    Raises:
        UsageError: it was made with another.
    """
    if recorded is None or recorded.budget == budget:
        return recorded
    if recorded.budget_seconds is None:
        return replace(recorded, budget=budget)
    remedy = "use that budget"
    if recorded.budget.flag == budget.flag and isinstance(recorded.budget, TimeOf):
        remedy = f"add --set train.iterations={recorded.budget.iterations}"
    raise UsageError(
        f"--budget {budget.flag}, which means {budget.words}: cells in {out} were trained for {recorded.budget.words}",
        remedy=f"{remedy}, or choose another --out",
    )
