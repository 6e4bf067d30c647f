"""The Mann-Whitney test, one-sided and exact, for the few turns that a latency row has."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray


def p_larger(values: Sequence[float], others: Sequence[float]) -> float:
    """Chance of a rank sum of ``values`` at least as large as theirs, if both are drawn from one source; exact, with ties.

    >>> p_larger([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])  # one of the 20 ways to choose three of six
    0.05
    """
    ranks = _doubled_midranks(np.asarray([*values, *others], dtype=np.float64))
    seen = int(ranks[: len(values)].sum())
    # ways[k, s]: how many subsets of k of the ranks have the sum s; whole numbers, exact in float64 up to 2**53, then to 16 digits
    ways = np.zeros((len(values) + 1, int(ranks.sum()) + 1))
    ways[0, 0] = 1.0
    for rank in ranks.tolist():
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    return float(ways[-1, seen:].sum()) / comb(len(ranks), len(values))


def smallest_p(new: int, old: int) -> float:
    """The smallest p that so many turns can give.

    >>> round(smallest_p(3, 3), 3)
    0.05
    """
    return 1.0 / comb(new + old, new)


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


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment: with these below a level, the chance of any false one among them is below it.

    >>> holm([0.01, 0.04])
    [0.02, 0.04]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _doubled_midranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Twice the rank of each value, ties sharing the middle of theirs: whole numbers."""
    ordered = np.sort(values)
    first, last = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    return (first + 1 + last).astype(np.int64)
