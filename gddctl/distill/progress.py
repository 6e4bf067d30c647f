"""What a training says while it runs: a progress bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TextIO


@dataclass(frozen=True)
class StepReport:
    """The state after a training step. ``terms`` are means over the steps since the last report."""

    stage: str
    step: int  # steps done
    total: int
    terms: Mapping[str, float] = field(default_factory=dict)
    lr: float = 0.0
    images_per_s: float = 0.0
    data_wait: float = 0.0  # share of the time that was spent waiting for the loader, 0..1
    eta_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the pipe between processes."""
        return {**asdict(self), "terms": dict(self.terms)}


class Reporter(Protocol):
    """Shows progress. Only one process calls it."""

    def begin(self, stage: str, done: int, total: int) -> None:
        """A stage starts, or goes on after ``done`` of ``total`` steps."""

    def tick(self, done: int) -> None:
        """``done`` steps are done; called after every step, cheap."""

    def step(self, report: StepReport) -> None:
        """Numbers, every ``log_every`` steps."""

    def note(self, text: str) -> None:
        """A line worth reading: a validation score, a warning, a fall-back."""

    def end(self) -> None:
        """The stage is over, well or not."""


def console_reporter(stream: TextIO | None = None, *, quiet: bool = False) -> Reporter:
    """The reporter for a person: rich on a terminal, lines elsewhere. Writes to ``stream`` (standard error by default)."""
    stream = stream if stream is not None else sys.stderr
    if quiet:
        return SilentReporter()
    return BarReporter(stream) if stream.isatty() else LineReporter(stream)


class SilentReporter:
    """Says nothing."""

    def begin(self, stage: str, done: int, total: int) -> None:
        """Nothing."""

    def tick(self, done: int) -> None:
        """Nothing."""

    def step(self, report: StepReport) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class LineReporter:
    """One line per report."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, stage: str, done: int, total: int) -> None:
        """Say where the stage starts."""
        self._write(f"{stage}: " + (f"going on at step {done} of {total}" if done else f"{total} steps"))

    def tick(self, done: int) -> None:
        """Nothing between reports."""

    def step(self, report: StepReport) -> None:
        """Write the numbers."""
        self._write(f"{report.stage} {report.step}/{report.total}  {describe(report)}  eta {clock(report.eta_s)}")

    def note(self, text: str) -> None:
        """Write the line."""
        self._write(text)

    def end(self) -> None:
        """Nothing to tidy."""

    def _write(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class BarReporter:
    """A rich progress bar that keeps its place on the terminal, notes above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(file=stream)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"))
        self._progress = Progress(*columns, console=self._console)
        self._task: Any = None
        self._drawn = 0.0

    def begin(self, stage: str, done: int, total: int) -> None:
        """Draw the bar."""
        self._task = self._progress.add_task(stage, total=total, completed=done, numbers="")
        self._progress.start()

    def tick(self, done: int) -> None:
        """Move the bar, at most ten times a second."""
        if time.monotonic() - self._drawn > 0.1:
            self._drawn = time.monotonic()
            self._progress.update(self._task, completed=done)

    def step(self, report: StepReport) -> None:
        """Put the numbers behind the bar."""
        numbers = f"{describe(report)}  eta {clock(report.eta_s)}"
        self._progress.update(self._task, completed=report.step, numbers=numbers)

    def note(self, text: str) -> None:
        """Write the line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """Take the bar away, leaving its last state."""
        self._progress.stop()
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def describe(report: StepReport) -> str:
    """Loss terms, learning rate, speed and waiting, as one line.

    >>> describe(StepReport(stage="student", step=1, total=2, terms={"loss": 1.25}, lr=0.01, images_per_s=20.0, data_wait=0.012))
    'loss 1.250  lr 0.0100  20.0 img/s  data 1 %'
    """
    terms = "  ".join(f"{name} {value:.3f}" for name, value in report.terms.items())
    return f"{terms}  lr {report.lr:.4f}  {report.images_per_s:.1f} img/s  data {100 * report.data_wait:.0f} %"


def clock(seconds: float) -> str:
    """Hours, minutes, seconds.

    >>> clock(3723.4), clock(59)
    ('1:02:03', '0:59')
    """
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
