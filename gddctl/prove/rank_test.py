"""The Mann-Whitney test, one-sided: exact for the few turns that a latency row has, by the normal distribution for very many."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import comb, erfc, sqrt

import numpy as np
from numpy.typing import NDArray

MOST_STEPS = 50_000_000  # of counting, a few hundredths of a second: 60 turns against 60, or 4 against 1000


def p_larger(values: Sequence[float], others: Sequence[float]) -> float:
    """Chance of a rank sum of ``values`` at least as large as theirs, if both are drawn from one source, with ties.

    Exact, as long as counting takes ``MOST_STEPS`` at most; beyond that by the normal distribution, corrected for ties and for whole
    ranks: counting grows with the fourth power of the turns, and with so many the two hardly differ.

    >>> p_larger([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])  # one of the 20 ways to choose three of six
    0.05
    """
    ranks = _doubled_midranks(np.asarray([*values, *others], dtype=np.float64))
    seen, least = int(ranks[: len(values)].sum()), min(len(values), len(others))
    largest_sum = int(np.sort(ranks)[len(ranks) - least :].sum())
    if len(ranks) * (least + 1) * largest_sum // 2 > MOST_STEPS:
        return _by_normal(ranks, len(values), seen)
    if least == len(values):
        return float(_ways(ranks, least, largest_sum)[seen:].sum()) / comb(len(ranks), least)
    return float(_ways(ranks, least, largest_sum)[: int(ranks.sum()) - seen + 1].sum()) / comb(len(ranks), least)


def smallest_p(new: int, old: int) -> float:
    """The smallest p that so many turns can give.

    >>> round(smallest_p(3, 3), 3)
    0.05
    """
    return 1 / comb(new + old, new)  # of whole numbers: where a float has no room for the divisor, this is 0


def pair_ratios(new: Sequence[float], old: Sequence[float]) -> NDArray[np.float64]:
    """Every new turn over every old one, sorted; their median is the Hodges-Lehmann estimate on the log scale, but for even counts."""
    return np.sort(np.divide.outer(np.asarray(new, dtype=np.float64), np.asarray(old, dtype=np.float64)).ravel())


def lower_bound(new: Sequence[float], old: Sequence[float], level: float) -> float | None:
    """The largest ratio that new over old is shown to exceed at ``level``; None where so few turns show nothing.

    It is the test turned around: new over old exceeds a ratio r at ``level`` exactly if enough of the pairs do.
    """
    if smallest_p(len(new), len(old)) > level:
        return None
    ratios = pair_ratios(new, old).tolist()
    shown = bisect_left(ratios, True, key=lambda ratio: p_larger([value / ratio for value in new], old) > level)  # p grows with the ratio
    return ratios[shown - 1] if shown else None


def _ways(ranks: NDArray[np.int64], count: int, largest_sum: int) -> NDArray[np.float64]:
    """How many ways to choose ``count`` of the (N,) doubled ranks have the sum s: (largest_sum + 1,).

    Whole numbers, exact in float64 up to 2**53, then to 16 digits.
    """
    unit = int(np.gcd.reduce(ranks))  # 2 without ties
    ways = np.zeros((count + 1, largest_sum // unit + 1))  # [k, s]: of subsets of k
    ways[0, 0] = 1.0
    for rank in (ranks // unit).tolist():
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    spread = np.zeros(largest_sum + 1)
    spread[::unit] = ways[-1]
    return spread


def _by_normal(ranks: NDArray[np.int64], count: int, seen: int) -> float:
    """The chance of a rank sum of ``seen`` or more, as if they were normal; ``seen`` and the (N,) ranks are doubled."""
    total, ties = len(ranks), np.unique(ranks, return_counts=True)[1].astype(np.float64)
    variance = count * (total - count) / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    if variance <= 0.0:  # all alike
        return 1.0
    above = seen / 2 - 0.5 - count * (total + 1) / 2
    return 0.5 * erfc(above / sqrt(2 * variance))


def _doubled_midranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Twice the rank of each value, ties sharing the middle of theirs: whole numbers."""
    ordered = np.sort(values)
    first, last = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    return (first + 1 + last).astype(np.int64)
