"""How often a tensor took which value: bins of equal width on both sides of zero, filled one array at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import DataError

BINS = 2048  # on each side of zero, up to the largest magnitude: 16 to a level of the entropy method's 128
_CHUNK = 1 << 16  # values worked on at once: their copies stay in the cache
_SMALLEST_PEAK = 1e-30  # below it a bin's width has no float32 reciprocal; nothing that small is told from zero


@dataclass(frozen=True)
class Histogram:
    """Counts of one tensor's values.

    Bin k of ``above`` holds values within ``k * width .. (k + 1) * width``, of ``below`` their negatives; both have ``BINS`` bins.
    Exact zeros, which every code represents exactly, are counted apart.
    """

    low: float  # smallest and largest value seen
    high: float
    width: float  # of a bin; 0 where every value is zero
    below: NDArray[np.int64]  # (BINS,)
    above: NDArray[np.int64]  # (BINS,)
    zeros: int

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.below.sum() + self.above.sum()) + self.zeros


class Counter:
    """Fills one tensor's histogram. The order in which values arrive, and in what portions, changes nothing."""

    def __init__(self, name: str, low: float, high: float) -> None:
        """``low`` and ``high`` are what an earlier pass over the same images saw."""
        self._name, self._low, self._high = name, low, high
        peak = max(-low, high)
        self._width = peak / BINS if peak > _SMALLEST_PEAK else 0.0
        self._zeros = 0
        # One bin beyond each end: a value may differ in its last digit from that of the earlier pass.
        self._counts = np.zeros(2 * BINS + 2, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Count float32 values of any shape.

        Raises:
            DataError: a value far outside the range given at first, or NaN: the images changed in between.
        """
        flat = values.reshape(-1)
        if self._width == 0.0:
            self._zeros += flat.size
            return
        per_unit, middle = np.float32(1.0 / self._width), np.float32(BINS + 1)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            self._zeros += part.size - int(np.count_nonzero(part))
            place = part * per_unit
            place += middle  # zero falls on the lower edge of bin BINS + 1, exactly
            try:
                with np.errstate(invalid="ignore"):  # NaN becomes a negative place
                    self._counts += np.bincount(place.astype(np.int64), minlength=self._counts.size)
            except ValueError as error:  # a negative place, or more of them than bins
                raise DataError(
                    f"tensor '{self._name}' left {self._low:.6g}..{self._high:.6g} when the same images were shown again",
                    remedy="the images changed during calibration; calibrate again",
                ) from error

    def result(self) -> Histogram:
        """The counts so far."""
        below, above = self._counts[BINS::-1].copy(), self._counts[BINS + 1 :].copy()
        above[0] -= self._zeros if self._width else 0
        for side in (below, above):
            side[BINS - 1] += side[BINS]
        return Histogram(self._low, self._high, self._width, below[:BINS], above[:BINS], self._zeros)
