"""Means and speeds between two reports of a training."""

from __future__ import annotations

import time
from collections.abc import Mapping

STARVED = 0.1  # share of the time that went waiting for images, from which on it is said
SOON = 60.0  # seconds of steps; a shorter training is mostly its start


class Pace:
    """Collects loss terms (which a checkpoint carries on) and times (which it does not).

    Args:
        sums: of each term since the last report, from a checkpoint or empty.
        steps: how many steps they are of.
    """

    def __init__(self, sums: Mapping[str, float], steps: int) -> None:
        self.sums, self.steps = dict(sums), steps
        self._began, self._images, self._waited = time.perf_counter(), 0, 0.0
        self._seconds_in_all, self._waited_in_all = 0.0, 0.0

    def add(self, terms: Mapping[str, float]) -> None:
        """Count a step's terms in."""
        self.steps += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Mean of each term since the last report, with their sum as ``loss``; starts the next stretch."""
        means = {name: value / self.steps for name, value in self.sums.items()}
        self.sums, self.steps = {}, 0
        return {"loss": sum(means.values()), **means}

    def ran(self, images: int, waited: float) -> None:
        """Count the images of a step, and the seconds it waited for them."""
        self._images += images
        self._waited += waited

    def speed(self) -> tuple[float, float]:
        """Images a second and the share of time spent waiting for data since the last report; starts the next stretch."""
        elapsed = max(1e-9, time.perf_counter() - self._began)
        found = self._images / elapsed, self._waited / elapsed
        self._seconds_in_all += elapsed
        self._waited_in_all += self._waited
        self._began, self._images, self._waited = time.perf_counter(), 0, 0.0
        return found

    def starved(self) -> float | None:
        """The share of all reported time spent waiting for data, where it is worth a word."""
        if self._seconds_in_all < SOON or self._waited_in_all < STARVED * self._seconds_in_all:
            return None
        return self._waited_in_all / self._seconds_in_all

    def pause(self, seconds: float) -> None:
        """Leave out ``seconds`` that something else took: validation, checkpoints."""
        self._began += seconds
