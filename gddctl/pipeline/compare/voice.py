"""Progress of cells that train side by side: lines with the cell's name, not too many."""

from __future__ import annotations

import logging
import time

from gddctl.distill.progress import StepReport, clock, describe

log = logging.getLogger(__name__)
EVERY = 20.0  # seconds between two lines of numbers of a cell


class CellReporter:
    """A reporter that logs under the cell's name."""

    def __init__(self, label: str) -> None:
        self._label, self._spoke = label, -EVERY

    def begin(self, stage: str, done: int, total: int) -> None:
        """Say where the cell starts."""
        log.info("%s: %s", self._label, f"going on at step {done} of {total}" if done else f"{total} steps")

    def tick(self, done: int) -> None:
        """Nothing between reports."""

    def step(self, report: StepReport) -> None:
        """Say the numbers, now and then."""
        now = time.monotonic()
        if now - self._spoke >= EVERY:
            self._spoke = now
            log.info("%s: %d/%d  %s  eta %s", self._label, report.step, report.total, describe(report), clock(report.eta_s))

    def note(self, text: str) -> None:
        """Say the line."""
        log.info("%s: %s", self._label, text)

    def end(self) -> None:
        """Nothing to tidy."""
