"""Timing one call again and again: warm-up until it is stable, then samples of a monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

BLOCK = 50  # samples whose median must be stable; NVIDIA's and our own practice
STABLE = 0.02  # relative change between two medians in a row that counts as stable
MIN_WARMUP = 3  # calls at least, however slow they are
NS_PER_MS = 1e6

Clock = Callable[[], int]  # nanoseconds, monotonic


@dataclass(frozen=True)
class WarmUp:
    """How many calls were made before measuring, and whether their time had settled."""

    samples: int
    stable: bool
    last_ns: int  # the last call's time
    median_ns: float  # of the last block


def warm_up(call: Callable[[], object], *, seconds: float, clock: Clock = perf_counter_ns) -> WarmUp:
    """Call until the medians of two blocks of ``BLOCK`` samples in a row are within ``STABLE``, or until ``seconds`` have passed."""
    end = clock() + int(seconds * 1e9)
    taken: list[int] = []
    while True:
        taken.append(_timed(call, clock))
        if len(taken) >= 2 * BLOCK and len(taken) % BLOCK == 0:
            before, after = np.median(taken[-2 * BLOCK : -BLOCK]), np.median(taken[-BLOCK:])
            if abs(after - before) <= STABLE * before:
                return WarmUp(len(taken), stable=True, last_ns=taken[-1], median_ns=float(after))
        if clock() >= end and len(taken) >= MIN_WARMUP:
            return WarmUp(len(taken), stable=False, last_ns=taken[-1], median_ns=float(np.median(taken[-BLOCK:])))


def measure(call: Callable[[], object], *, samples: int, seconds: float, clock: Clock = perf_counter_ns) -> list[int]:
    """Times of single calls in nanoseconds: at least ``samples`` of them, over at least ``seconds``."""
    end = clock() + int(seconds * 1e9)
    taken: list[int] = []
    while len(taken) < samples or clock() < end:
        taken.append(_timed(call, clock))
    return taken


@dataclass(frozen=True)
class Summary:
    """Milliseconds. Percentiles interpolate between samples; nothing is clipped, the tail is the point."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    std: float
    min: float


def summarise(milliseconds: Sequence[float] | NDArray[np.float64]) -> Summary:
    """Summary of samples; ``std`` is the sample standard deviation.

    >>> summarise([1.0, 2.0, 3.0]).p50
    2.0
    """
    values = np.asarray(milliseconds, dtype=np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, (50, 90, 95, 99)))
    std = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return Summary(p50, p90, p95, p99, mean=float(values.mean()), std=std, min=float(values.min()))


def _timed(call: Callable[[], object], clock: Clock) -> int:
    start = clock()
    call()
    return clock() - start
