"""Has a method stopped improving: what training for longer gave, with its interval, and the answer in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from typing_extensions import assert_never

from gddctl.core.reports.comparison import REFERENCE, Arm, Comparison, MethodRow, Pair
from gddctl.core.reports.comparison_words import figure, interval
from gddctl.prove.bootstrap import paired_difference

LONGER = 1.5  # times the iterations that the longer training needs: a tenth more says nothing about a ceiling


def far_apart(longer: int, shorter: int) -> bool:
    """Whether ``longer`` iterations are enough more than ``shorter`` to tell of a ceiling."""
    return longer >= LONGER * shorter


@dataclass(frozen=True)
class Saturation:
    """What the longer of two trainings gained. Truthy when the gain is established to be below the limit."""

    pair: Pair  # longer minus shorter
    limit_points: float
    source: Literal["trainings", "curve"]  # a curve's middle still had a high learning rate: it overstates what more steps give

    @property
    def verdict(self) -> Literal["stopped", "improving", "not known"]:
        """From the interval: below the limit, above it, or neither."""
        pair = self.pair
        if not pair.covers_seeds or pair.low_points is None or pair.high_points is None:
            return "not known"
        if not far_apart(pair.first.iterations, pair.second.iterations):
            return "not known"
        return "stopped" if pair.high_points < self.limit_points else "improving" if pair.low_points > self.limit_points else "not known"

    def __bool__(self) -> bool:
        return self.verdict == "stopped"

    @property
    def sentence(self) -> str:
        """The answer with its numbers."""
        pair, limit = self.pair, f"{self.limit_points:g} points"
        seeds = "one seed" if len(pair.seeds) == 1 else f"{len(pair.seeds)} seeds"
        shown = f" (95 % interval {interval(pair)}, {seeds})" if interval(pair) else ""
        span = f"from {pair.second.iterations} to {pair.first.iterations} iterations"
        gain = f"{pair.first.method} gained {figure(pair.difference_points)} points {span}{shown}"
        match self.verdict:
            case "stopped":
                words = f"it has stopped improving, to within {limit}"
            case "improving":
                words = f"it was still improving, by more than {limit}"
            case "not known":
                words = f"that it has stopped improving, to within {limit}, is not established{self._why}"
            case other:
                assert_never(other)
        return f"{gain}: {words}{'; read from one curve, validations while training' if self.source == 'curve' else ''}."

    @property
    def _why(self) -> str:
        if not self.pair.covers_seeds:
            return ", with one seed"
        near = not far_apart(self.pair.first.iterations, self.pair.second.iterations)
        return f", with less than {LONGER:g} times the iterations" if near else ""


def saturation(comparison: Comparison, method: str = REFERENCE, *, limit_points: float = 0.5) -> Saturation | None:
    """Whether ``method`` has stopped improving.

    Where it was trained for several lengths, the longest is held against the longest of those that are far enough below it; else the two
    halves of its curves are compared, which is weaker: half-way through, the learning rate had not yet fallen.

    Returns:
        None where there is neither a second length nor a curve.
    """
    found = [pair for pair in comparison.pairs if pair.kind == "same method" and pair.first.method == method]
    if found:
        return Saturation(max(found, key=_tells), limit_points, "trainings")
    rows = [row for row in comparison.rows if row.arm.method == method and row.curves]
    if not rows:
        return None
    pair = _second_half(max(rows, key=lambda row: row.arm.iterations), comparison.bootstrap.draws, comparison.bootstrap.seed)
    return None if pair is None else Saturation(pair, limit_points, "curve")


def _tells(pair: Pair) -> tuple[int, bool, int]:
    """The longest first; of its pairs one that is far enough apart; of those the nearest."""
    longer, shorter = pair.first.iterations, pair.second.iterations
    return longer, far_apart(longer, shorter), shorter


def _second_half(row: MethodRow, draws: int, seed: int) -> Pair | None:
    """What the second half of each curve gained, paired by seed; over seeds alone. None without a validation in the first half."""
    gains, seeds, middle, last = [], [], 0, 0
    for number, curve in row.curves:
        early = [point for point in curve if 2 * point[0] <= curve[-1][0]]
        if early:
            gains.append(100 * (curve[-1][2] - early[-1][2]))
            seeds.append(number)
            middle, last = early[-1][0], curve[-1][0]
    if not gains:
        return None
    estimate = paired_difference(np.array(gains), None, draws=draws, seed=seed)
    return Pair(
        first=Arm(row.arm.method, last, row.arm.budget),
        second=Arm(row.arm.method, middle, row.arm.budget),
        seeds=tuple(seeds),
        left_out=(),
        images=0,
        difference_points=estimate.difference,
        low_points=estimate.low,
        high_points=estimate.high,
        p=estimate.p,
    )
