"""Warm-up, measuring and summaries, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest

from gddctl.prove.affinity import pick_cpus
from gddctl.prove.sampling import BLOCK, measure, summarise, warm_up

MS = 1_000_000


class Machine:
    """A call that takes what it is told, and the clock that shows it."""

    def __init__(self, milliseconds: Iterable[float]) -> None:
        self._times: Iterator[float] = iter(milliseconds)
        self.now = 0
        self.calls = 0

    def call(self) -> None:
        self.now += int(next(self._times) * MS)
        self.calls += 1

    def clock(self) -> int:
        return self.now


def test_warm_up_ends_when_two_medians_in_a_row_are_close() -> None:
    machine = Machine(chain(repeat(10, BLOCK), repeat(8, BLOCK), repeat(7.9, 1000)))
    result = warm_up(machine.call, seconds=60, clock=machine.clock)
    assert result.stable and result.samples == machine.calls == 3 * BLOCK  # 10 -> 8 is 20 %, 8 -> 7.9 is 1.25 %
    assert result.last_ns == 7.9 * MS


def test_warm_up_that_never_settles_ends_by_time() -> None:
    machine = Machine(100 * 0.9 ** (n // BLOCK) for n in range(100_000))
    result = warm_up(machine.call, seconds=20, clock=machine.clock)
    assert not result.stable and 20e9 <= machine.now < 20.2e9


def test_warm_up_of_a_very_slow_model_still_calls_three_times() -> None:
    machine = Machine(repeat(60_000))
    assert warm_up(machine.call, seconds=1, clock=machine.clock).samples == 3


@pytest.mark.parametrize(("milliseconds", "samples", "seconds", "expected"), [(1, 200, 0.0, 200), (1, 10, 1.0, 1000), (1, 0, 0.0, 0)])
def test_measure_takes_at_least_both(milliseconds: float, samples: int, seconds: float, expected: int) -> None:
    machine = Machine(repeat(milliseconds))
    taken = measure(machine.call, samples=samples, seconds=seconds, clock=machine.clock)
    assert taken == [MS] * expected


def test_summary_keeps_the_tail() -> None:
    values = [1.0] * 98 + [50.0, 100.0]
    summary = summarise(values)
    assert (summary.p50, summary.p90, summary.p95, summary.min) == (1, 1, 1, 1)
    assert summary.p99 == pytest.approx(np.percentile(values, 99)) and summary.p99 > 50
    assert summary.mean == pytest.approx(2.48) and summary.std == pytest.approx(np.std(values, ddof=1))
    assert summarise([3.0]).std == 0.0


def test_one_cpu_per_core_comes_first(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert pick_cpus(2, (0, 2, 1, 3), tmp_path) == (0, 1)
    assert pick_cpus(3, (0, 1, 2, 3), tmp_path) == (0, 1, 2)
    assert pick_cpus(9, (0, 1, 2, 3), tmp_path) == (0, 1, 2, 3)
    assert pick_cpus(2, (5, 6, 7), tmp_path) == (5, 6)  # unknown topology
