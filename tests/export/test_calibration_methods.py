"""Histogram and methods against known distributions, and against slow references that share no line with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import DataError
from gddctl.export.calibration.histogram import BINS, Counter, Histogram
from gddctl.export.calibration.methods import METHODS, PERCENTILE, MethodName, entropy, mean_squared_error, percentile, range_of

Values = NDArray[np.float32]
CLIPPING: tuple[MethodName, ...] = ("entropy", "percentile", "mse")
NEAR_BEST = 1.02  # of the smallest error on a plain grid: the search moves one end at a time, over bins instead of values
NEAR_KL = 1.05  # of the smallest divergence: edges are tried by sixteens first


def histogram(values: Values) -> Histogram:
    counter = Counter("x", float(values.min()), float(values.max()))
    counter.add(values)
    return counter.result()


def uniform(low: float, high: float) -> Values:
    return np.linspace(low, high, 400_000, dtype=np.float32)


def gaussian(count: int = 200_000) -> Values:
    return np.random.default_rng(5).standard_normal(count).astype(np.float32)


def with_outlier(values: Values, outlier: float) -> Values:
    return np.append(values, np.float32(outlier))


def relu_like() -> Values:
    return with_outlier(np.maximum(gaussian(), 0), 30.0)


def skewed() -> Values:
    return np.concatenate([-np.abs(gaussian(20_000)) * 0.05, np.random.default_rng(1).exponential(1.0, 100_000)]).astype(np.float32)


# --- histogram


def test_counts_are_those_of_numpy() -> None:
    values = np.append(gaussian(50_000), np.zeros(777, np.float32)).astype(np.float32)
    found = histogram(values)
    peak = float(np.abs(values).max())
    assert found.width == peak / BINS and found.zeros == 777 and found.total == values.size
    edges = np.arange(BINS + 1) * found.width
    edges[-1] *= 1.000001
    for counts, side in ((found.above, values[values > 0]), (found.below, -values[values < 0])):
        expected, _ = np.histogram(side.astype(np.float64), edges)
        # A value within a float32's last digits of an edge may fall on either side of it.
        assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 2
        assert counts.sum() == side.size


def test_portions_and_order_change_nothing() -> None:
    values = gaussian(70_001)
    whole = histogram(values)
    counter = Counter("x", float(values.min()), float(values.max()))
    for part in np.array_split(values[::-1], 7):
        counter.add(part.reshape(1, -1))
    again = counter.result()
    assert np.array_equal(whole.above, again.above) and np.array_equal(whole.below, again.below)


@pytest.mark.parametrize("peak", [3e-3, 0.1, 1.0, 7.3, 49.0, 6e4])
def test_zero_is_on_an_edge(peak: float) -> None:
    """The smallest values on either side of zero stay on their side, and zeros are neither."""
    tiny = peak / BINS / 4
    found = histogram(np.array([-peak, -tiny, 0, 0, 0, tiny, peak], np.float32))
    assert (found.below[0], found.zeros, found.above[0]) == (1, 3, 1)
    assert found.below[-1] == found.above[-1] == 1


@pytest.mark.parametrize("late", [2.0, -2.0, float("nan")])
def test_images_that_changed_between_the_passes_are_noticed(late: float) -> None:
    counter = Counter("stem", -1.0, 1.0)
    counter.add(np.array([0.999, -1.0, 1.00001], np.float32))  # the last digit may move
    with pytest.raises(DataError, match=r"tensor 'stem' left -1\.\.1 when the same images"):
        counter.add(np.array([late], np.float32))


# --- known distributions


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 1.0), (-0.5, 4.0)])
def test_a_uniform_distribution_is_not_clipped(method: MethodName, low: float, high: float) -> None:
    """But for the share that percentile gives up by definition."""
    found = range_of(method, histogram(uniform(low, high)))
    slack = (high - low) * (1 - PERCENTILE / 100) + (high - low) / 255  # one step of the code more or less is no clipping
    assert found == pytest.approx((low, high), abs=slack)


@pytest.mark.parametrize("method", CLIPPING)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_lone_outlier_is_clipped(method: MethodName, sign: int) -> None:
    """One value of 200 001 at forty times the spread: every method but minmax lets go of it, and keeps the bulk.

    Squared error does so by halves: with a step of 44/255 all others together lose 200 000 * step^2 / 12 = 500 already, which pays
    for clipping the outlier by no more than a dozen.
    """
    low, high = range_of(method, histogram(with_outlier(gaussian(), 40.0 * sign)))
    near, far = (-low, high) if sign > 0 else (high, -low)
    assert 2.0 < far < (35.0 if method == "mse" else 12.0)
    assert 2.0 < near < 5.0
    assert range_of("minmax", histogram(with_outlier(gaussian(), 40.0 * sign)))[sign > 0] == 40.0 * sign


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_negative_stays_so(method: MethodName) -> None:
    low, high = range_of(method, histogram(relu_like()))
    assert low == 0.0 and math.copysign(1, low) == 1
    assert 0 < high <= 30.0
    low, high = range_of(method, histogram(-relu_like()))
    assert -30.0 <= low < 0 and high == 0.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0, 1e-35])
def test_constants_keep_their_value(method: MethodName, value: float) -> None:
    for count in (1, 1000):
        found = range_of(method, histogram(np.full(count, value, np.float32)))
        assert found == pytest.approx((value, value), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_an_almost_always_silent_tensor_keeps_a_range(method: MethodName) -> None:
    values = np.zeros(1_000_000, np.float32)
    values[:5] = [1.0, 2.0, 3.0, 4.0, 5.0]
    low, high = range_of(method, histogram(values))
    assert low == 0.0 and high > 1.0


# --- slow references


@pytest.mark.parametrize("make", [gaussian, relu_like, skewed])
@pytest.mark.parametrize("share", [99.0, PERCENTILE])
def test_percentile_against_sorted_values(make: Callable[[], Values], share: float) -> None:
    values = np.sort(make().astype(np.float64))
    found = histogram(values.astype(np.float32))
    low, high = percentile(found, share)
    sides = int(values[0] < 0) + int(values[-1] > 0)
    allowed = int(values.size * (100 - share) / 100 / sides)
    assert high == pytest.approx(values[-1 - allowed], abs=found.width * 1.001)
    assert np.count_nonzero(values > high) <= allowed
    if values[0] < 0:
        assert low == pytest.approx(values[allowed], abs=found.width * 1.001)
        assert np.count_nonzero(values < low) <= allowed


def coding_error(values: NDArray[np.float64], low: float, high: float) -> float:
    step = (high - low) / 255
    first, last = round(low / step), round(high / step)
    codes = np.round(values / step)
    codes[codes < first] = first
    codes[codes > last] = last
    return float(((codes * step - values) ** 2).mean())


@pytest.mark.parametrize("make", [gaussian, relu_like, skewed, lambda: with_outlier(gaussian(20_000), 15.0)])
def test_mse_against_a_grid_over_the_values(make: Callable[[], Values]) -> None:
    values = make()[-20_001:].astype(np.float64)
    found = mean_squared_error(histogram(values.astype(np.float32)))
    lows = np.linspace(values.min(), values.min() / 20, 24) if values.min() < 0 else [0.0]
    highs = np.linspace(values.max(), values.max() / 20, 24)
    best = min(coding_error(values, low, high) for low in lows for high in highs)
    assert coding_error(values, *found) <= best * NEAR_BEST


def slow_divergence(counts: list[int], edge: int, levels: int) -> float:
    """Migacz's algorithm, bin by bin."""
    reference = [float(count) for count in counts[:edge]]
    reference[edge - 1] += sum(counts[edge:])
    coded = [0.0] * edge
    for level in range(levels):
        portion = range(level * edge // levels, (level + 1) * edge // levels)
        mass, homes = sum(counts[k] for k in portion), sum(counts[k] > 0 for k in portion)
        for k in portion:
            coded[k] = mass / homes if counts[k] else 0.0
    total, coded_total = sum(reference), sum(coded)
    divergence = 0.0
    for p, q in zip(reference, coded, strict=True):
        if p and not q:
            return math.inf
        if p:
            divergence += p / total * math.log((p / total) / (q / coded_total))
    return divergence


@pytest.mark.parametrize("make", [relu_like, skewed, lambda: with_outlier(gaussian(), -40.0)])
def test_entropy_against_bin_by_bin(make: Callable[[], Values]) -> None:
    found = histogram(make())
    counts = [int(below + above) for below, above in zip(found.below, found.above, strict=True)]
    low, high = entropy(found)
    chosen = round(max(-low if low > found.low else 0, high if high < found.high else 0) / found.width) or BINS
    divergences = {edge: slow_divergence(counts, edge, 128) for edge in (*range(128, BINS + 1, 24), BINS)}
    assert slow_divergence(counts, chosen, 128) <= min(divergences.values()) * NEAR_KL
    assert chosen < BINS  # it is no no-op
    assert slow_divergence(counts, chosen, 128) < divergences[BINS]


def test_the_references_tell_good_from_bad() -> None:
    """Partner: twice too wide or too narrow a range fails the bars above."""
    values = gaussian(20_000)
    found = mean_squared_error(histogram(values))
    exact: Any = values.astype(np.float64)
    for factor in (0.5, 2.0):
        assert coding_error(exact, found[0] * factor, found[1] * factor) > coding_error(exact, *found) * NEAR_BEST
    counts = [int(below + above) for below, above in zip(histogram(values).below, histogram(values).above, strict=True)]
    assert slow_divergence(counts, BINS // 4, 128) > slow_divergence(counts, BINS, 128) * NEAR_KL  # a bell without outliers keeps its ends
    assert entropy(histogram(values)) == (float(values.min()), float(values.max()))
