"""Calls that arrive by a schedule: the schedule, the running of it, and the highest rate that keeps p99 within a bound.

The schedule is made before the first call and kept whatever happens: a slow answer delays no arrival, and a call's latency counts from
when it was meant to arrive. Timing each call from when it could start instead would leave out just the waiting that users see.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from gddctl.core.reports.latency_parts import Arrival
from gddctl.prove.sampling import Clock

TOLERANCE = 0.05  # between a rate that keeps the bound and one that does not, when the search ends
MAX_TRIALS = 8
FIRST_LOAD = 0.7  # of the capacity, where the search begins
MOST_LOAD = 0.98  # of the capacity: at 1 a queue of random arrivals grows without end
_SPIN_NS = 300_000  # sleeping ends up to this much too late; the rest is waited for awake


def arrivals(kind: Arrival, rate: float, count: int, seed: int) -> NDArray[np.int64]:
    """When ``count`` calls are to arrive, in nanoseconds after the start, the first at one interval; ``rate`` in calls per second.

    >>> arrivals("fixed", 100.0, 3, 0).tolist()
    [10000000, 20000000, 30000000]
    """
    match kind:
        case "fixed":
            seconds = np.arange(1, count + 1) / rate
        case "poisson":
            seconds = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, count))
        case _ as never:
            assert_never(never)
    return np.round(seconds * 1e9).astype(np.int64)


@dataclass(frozen=True)
class Served:
    """What came of a schedule. Nanoseconds."""

    latency: list[int]  # from the intended arrival to the answer
    service: list[int]  # of the call alone
    start: int  # of the schedule, by the clock
    end: int  # of the last answer
    given_up: bool  # too many calls were over the bound for p99 to be within it; the rest was not called


def serve_schedule(
    call: Callable[[], object],
    schedule: NDArray[np.int64],
    *,
    bound_ns: float | None = None,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Served:
    """Call once for every arrival, in order, one at a time; who arrives while another is answered waits."""
    latency, service, over = list[int](), list[int](), 0
    allowed = len(schedule) // 100  # of 100 calls, one may be over the bound of p99
    start = clock()
    for offset in schedule.tolist():
        due = start + offset
        _wait_until(due, clock, sleep)
        begun = clock()
        call()
        done = clock()
        latency.append(done - due)
        service.append(done - begun)
        over += bound_ns is not None and done - due > bound_ns
        if bound_ns is not None and over > allowed + 1:
            return Served(latency, service, start, done, given_up=True)
    return Served(latency, service, start, clock(), given_up=False)


Trial = Callable[[float], float | None]  # runs a rate; p99 in ms, or None when it was given up over the bound


@dataclass(frozen=True)
class Found:
    """The end of a search."""

    rate: float | None  # the highest that kept the bound; None: none of those tried did
    trials: tuple[tuple[float, float | None], ...]


def search_rate(trial: Trial, *, bound_ms: float, capacity: float) -> Found:
    """The highest rate whose p99 is within ``bound_ms``, to ``TOLERANCE``, in at most ``MAX_TRIALS`` trials.

    Args:
        trial: runs a rate.
        bound_ms: limit on p99.
        capacity: calls per second when one follows the other: no higher rate can last.
    """
    low, high, rate = 0.0, capacity * MOST_LOAD, capacity * FIRST_LOAD
    trials: list[tuple[float, float | None]] = []
    while len(trials) < MAX_TRIALS:
        p99 = trial(rate)
        trials.append((rate, p99))
        if p99 is not None and p99 <= bound_ms:
            low = rate
        else:
            high = rate
        if low > 0.0 and high <= low * (1.0 + TOLERANCE):
            break
        rate = (low + high) / 2.0 if low > 0.0 else high / 2.0
    return Found(low or None, tuple(trials))


def _wait_until(due: int, clock: Clock, sleep: Callable[[float], None]) -> None:
    while (left := due - clock()) > 0:
        if left > _SPIN_NS:
            sleep((left - _SPIN_NS) / 1e9)
