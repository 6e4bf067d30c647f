"""From a tensor's histogram to the range that its codes cover: minmax, percentile, entropy, mean squared error.

Each gives (low, high) within what was seen. A side on which nothing was seen is never clipped: what is not negative stays so. None
of them looks at a target, so that one calibration serves all; a symmetric code takes the larger of the two magnitudes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from gddctl.export.calibration.histogram import BINS, Histogram

MethodName = Literal["minmax", "entropy", "percentile", "mse"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
Range = tuple[float, float]

PERCENTILE = 99.99  # share of the values that are kept; one of the four that Wu et al. compare (arXiv:2004.09602, section 5)
LEVELS = 128  # magnitudes of an 8-bit code, zero included; Migacz, "8-bit inference with TensorRT" (GTC 2017)
STEPS = 255  # steps of an 8-bit code between the ends of its range
_COARSE = 16  # bins between the thresholds tried first; around the best one, every bin's edge is tried
_ROUNDS = 8  # mse: alternations between the two sides; two or three suffice

# Floats, as they are read back from a record.
SETTINGS: Mapping[str, float] = {"bins": float(BINS), "percentile": PERCENTILE, "levels": float(LEVELS), "steps": float(STEPS)}


def range_of(method: MethodName, histogram: Histogram) -> Range:
    """(low, high) by ``method``."""
    match method:
        case "minmax":
            return histogram.low, histogram.high
        case "percentile":
            return percentile(histogram)
        case "entropy":
            return entropy(histogram)
        case "mse":
            return mean_squared_error(histogram)
        case _:
            assert_never(method)


def percentile(histogram: Histogram, share: float = PERCENTILE) -> Range:
    """The narrowest range, in whole bins, that leaves at most ``100 - share`` percent of the values outside, half of them on each side.

    A range that would shrink to nothing, of a tensor that is almost always zero, stays as seen.
    """
    sides = int(histogram.low < 0) + int(histogram.high > 0)
    if sides == 0 or histogram.width == 0.0:
        return histogram.low, histogram.high
    allowed = int(histogram.total * (100.0 - share) / 100.0 / sides)
    edges = [_first_edge(counts, allowed) for counts in (histogram.below, histogram.above)]
    return _clipped(histogram, *edges) if any(edges) else (histogram.low, histogram.high)


def entropy(histogram: Histogram, levels: int = LEVELS) -> Range:
    """The magnitude at which clipping loses least information: smallest KL divergence of the coded from the clipped distribution.

    As Migacz describes it: values beyond the threshold are counted in the last bin of the reference; the coded distribution spreads
    what falls into each of ``levels`` equal portions over the portion's occupied bins. Exact zeros are left out, since their code is
    exact. Of equal thresholds the larger is taken.
    """
    magnitudes = histogram.below + histogram.above
    if not magnitudes.any():
        return histogram.low, histogram.high
    edge = _search(lambda edge: _divergence(magnitudes, edge, levels), levels, BINS)
    return _clipped(histogram, edge, edge)


def mean_squared_error(histogram: Histogram, steps: int = STEPS) -> Range:
    """The range whose codes, ``steps`` equal steps apart and one of them at zero, miss the values least, squared and on average.

    Two-sided tensors: each end is moved in turn until neither gains.
    """
    if histogram.width == 0.0:
        return histogram.low, histogram.high
    places = (np.arange(BINS) + 0.5) * histogram.width
    values, counts = np.concatenate([-places[::-1], places]), np.concatenate([histogram.below[::-1], histogram.above])
    values, weights = values[counts > 0], counts[counts > 0].astype(np.float64)
    below, above = (BINS if side.any() else 0 for side in (histogram.below, histogram.above))
    if not len(values):
        return histogram.low, histogram.high

    def error(low: int, high: int) -> float:  # edges, in bins
        return squared_error(values, weights, *_clipped(histogram, low, high), steps)

    for _ in range(_ROUNDS):
        before = below, above
        if above:
            above = _search(partial(error, below), 1, BINS)
        if below:
            below = _search(partial(error, high=above), 1, BINS)
        if (below, above) == before or not (below and above):
            break
    return _clipped(histogram, below, above)


def squared_error(values: NDArray[np.float64], weights: NDArray[np.float64], low: float, high: float, steps: int) -> float:
    """Weighted sum of squared coding errors. Shape: (N,), (N,) -> ()."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / steps
    codes = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step))
    return float(weights @ np.square(codes * step - values))


def _search(cost: Callable[[int], float], first: int, last: int) -> int:
    """The cheapest edge of ``first..last``: every sixteenth from the top, then each around the best. Ties go to the larger."""
    coarse = range(last, first - 1, -_COARSE)
    best = min(coarse, key=cost)
    return min(range(min(last, best + _COARSE - 1), max(first, best - _COARSE + 1) - 1, -1), key=cost)


def _divergence(counts: NDArray[np.int64], edge: int, levels: int) -> float:
    """KL(reference, coded) when magnitudes are clipped at ``edge`` bins; infinite where the coded one misses the last bin."""
    inside = counts[:edge].astype(np.float64)
    reference = inside.copy()
    reference[-1] += counts[edge:].sum()
    occupied = reference > 0
    starts = np.arange(levels) * edge // levels
    portions = np.add.reduceat(inside, starts)
    homes = np.add.reduceat((inside > 0).astype(np.float64), starts)
    if not (inside[-1] > 0 or not occupied[-1]) or not portions.any():
        return float("inf")
    share = np.divide(portions, homes, out=np.zeros(levels), where=homes > 0)
    coded = np.repeat(share, np.diff(np.append(starts, edge)))
    p, q = reference[occupied] / reference.sum(), coded[occupied] / portions.sum()
    return float(p @ np.log(p / q))


def _first_edge(counts: NDArray[np.int64], allowed: int) -> int:
    """The lowest edge beyond which at most ``allowed`` values lie."""
    beyond = np.append(np.cumsum(counts[::-1])[::-1], 0)
    return int(np.argmax(beyond <= allowed))


def _clipped(histogram: Histogram, below: int, above: int) -> Range:
    """What was seen, within ``-below..above`` bins."""
    return max(histogram.low, -below * histogram.width), min(histogram.high, above * histogram.width)
