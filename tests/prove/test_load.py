"""Offered load on a made-up clock: schedules, waiting that is not left out, giving up, and the search for a rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gddctl.prove.load import MAX_TRIALS, TOLERANCE, arrivals, search_rate, serve_schedule

MS = 10**6


class Machine:
    """A clock that calls and sleeps move on; reading it costs nothing, waiting awake one microsecond."""

    def __init__(self, costs: Callable[[int], int]) -> None:
        self.now, self.calls, self._costs = 0, 0, costs

    def clock(self) -> int:
        self.now += 1000
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def call(self) -> None:
        self.now += self._costs(self.calls)
        self.calls += 1


def test_fixed_and_poisson_schedules() -> None:
    assert np.diff(arrivals("fixed", 50.0, 5, 0)).tolist() == [20 * MS] * 4
    gaps = np.diff(arrivals("poisson", 50.0, 20001, 3)) / MS
    # Exponential gaps of mean 20 ms: their standard deviation is their mean. 20000 of them: 0.7 % standard error, five of those allowed.
    assert gaps.mean() == pytest.approx(20.0, rel=0.035) and gaps.std() == pytest.approx(20.0, rel=0.05)
    assert (arrivals("poisson", 50.0, 9, 3) == arrivals("poisson", 50.0, 9, 3)).all()
    assert (arrivals("poisson", 50.0, 9, 3) != arrivals("poisson", 50.0, 9, 4)).any()


def test_one_slow_answer_is_paid_for_by_all_who_waited() -> None:
    """Calls of 1 ms every 10 ms; the fifth takes 100 ms. Nine arrive meanwhile, and each of them waits: no omission is coordinated."""
    machine = Machine(lambda number: 100 * MS if number == 4 else MS)
    served = serve_schedule(machine.call, arrivals("fixed", 100.0, 30, 0), clock=machine.clock, sleep=machine.sleep)
    latency, service = np.array(served.latency) / MS, np.array(served.service) / MS
    assert latency[:4] == pytest.approx([1.0] * 4, abs=0.1) and latency[4] == pytest.approx(100.0, abs=0.1)
    # Number n after the slow one arrived 10 n ms into it and is answered n ms after its end.
    assert latency[5:15] == pytest.approx([100.0 - 9 * n for n in range(1, 11)], abs=0.2)
    assert latency[20:] == pytest.approx([1.0] * 10, abs=0.1)
    assert np.sort(service)[:29] == pytest.approx([1.0] * 29, abs=0.1)  # partner: timed from its own start, each call looks well


def test_a_hopeless_trial_is_given_up_only_when_p99_is_lost() -> None:
    slow = {10, 20, 30}
    machine = Machine(lambda number: 9 * MS if number in slow else MS)
    schedule = arrivals("fixed", 100.0, 200, 0)
    kept = serve_schedule(machine.call, schedule, bound_ns=5 * MS, clock=machine.clock, sleep=machine.sleep)
    assert not kept.given_up and len(kept.latency) == 200  # three of 200 may be over
    machine = Machine(lambda number: 9 * MS)
    lost = serve_schedule(machine.call, schedule, bound_ns=5 * MS, clock=machine.clock, sleep=machine.sleep)
    assert lost.given_up and len(lost.latency) == 4
    assert np.percentile(kept.latency, 98) < 5 * MS


def test_the_search_ends_at_the_edge() -> None:
    tried: list[float] = []

    def trial(rate: float) -> float | None:
        tried.append(rate)
        return 10.0 if rate <= 61.0 else None if rate > 80.0 else 30.0

    found = search_rate(trial, bound_ms=20.0, capacity=100.0)
    assert found.rate is not None and 61.0 / (1 + TOLERANCE) ** 2 <= found.rate <= 61.0
    assert [rate for rate, _ in found.trials] == tried and len(tried) <= MAX_TRIALS
    assert max(tried) < 100.0  # the capacity itself cannot last


def test_a_bound_that_no_rate_keeps_and_one_that_all_keep() -> None:
    none = search_rate(lambda rate: 50.0, bound_ms=20.0, capacity=100.0)
    assert none.rate is None and len(none.trials) == MAX_TRIALS
    every = search_rate(lambda rate: 1.0, bound_ms=20.0, capacity=100.0)
    assert every.rate is not None and every.rate > 0.9 * 100.0
