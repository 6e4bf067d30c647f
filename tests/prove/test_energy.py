"""Joules and watts of exactly the calls that were timed, from readings whose integral is known."""

from __future__ import annotations

import pytest

from gddctl.prove.sensors.energy import drawn
from gddctl.prove.sensors.reading import Reading
from gddctl.prove.sensors.sampler import Sampler, Trace
from gddctl.prove.sensors.summary import sensed

SECOND = 10**9
BASE = 3_600_000 * SECOND  # a monotonic clock after weeks of uptime


def trace(*readings: Reading, every: float = 1.0) -> Trace:
    return Trace(tuple(BASE + round(index * every * SECOND) for index in range(len(readings))), readings)


def at(start: float, end: float) -> list[tuple[int, int]]:
    return [(BASE + round(start * SECOND), BASE + round(end * SECOND))]


def test_power_is_integrated_by_trapezoids_over_the_window_alone() -> None:
    ramp = trace(*[Reading(power_w={"rail VDD_IN": 2.0 * index}) for index in range(5)])  # 2 W more each second
    found = drawn([ramp], [at(0.5, 3.5)], "rail VDD_IN")
    assert found is not None and found.by == "power"
    assert found.joules == pytest.approx(12.0)  # the integral of 2t from 0.5 to 3.5
    assert found.watts == pytest.approx(4.0)


def test_a_counter_is_preferred_and_read_between_its_ticks() -> None:
    readings = [Reading(power_w={"x": 999.0}, energy_j={"x": 10.0 * index}) for index in range(4)]
    found = drawn([trace(*readings)], [at(0.25, 2.75)], "x")
    assert found is not None and found.joules == pytest.approx(25.0) and found.by == "counter"


def test_turns_add_up_and_what_lies_between_does_not_count() -> None:
    turn = trace(*[Reading(power_w={"x": 5.0}) for _ in range(4)])
    found = drawn([turn, turn], [at(1, 2), at(0, 3)], "x")
    assert found is not None and found.joules == pytest.approx(20.0) and found.seconds == pytest.approx(4.0)


@pytest.mark.parametrize("order", [1, -1])
def test_one_turn_by_power_makes_the_whole_by_power(order: int) -> None:
    by_power = trace(*[Reading(power_w={"x": 5.0}) for _ in range(3)])
    by_counter = trace(*[Reading(energy_j={"x": 5.0 * index}) for index in range(3)])
    found = drawn([by_power, by_counter][::order], [at(0, 2), at(0, 2)], "x")
    assert found is not None and found.by == "power" and found.joules == pytest.approx(20.0)


def test_a_window_that_was_not_watched_is_not_guessed() -> None:
    turn = trace(*[Reading(power_w={"x": 5.0}) for _ in range(3)])
    assert drawn([turn], [at(1, 2.5)], "x") is None
    assert drawn([turn], [at(0, 1)], "y") is None


def test_energy_is_told_of_long_steady_runs_alone() -> None:
    # 41 readings at 8 W: 40 s; 400 images in 32 s of calls are 0.64 J each.
    readings = [Reading(power_w={"rail VDD_IN": 8.0, "rail VDD_SOC": 1.0}, gpu_mhz=900.0 + index) for index in range(41)]
    steady = sensed([trace(*readings)], [at(4, 36)], images=400, on_gpu=True, steady=True)
    assert steady.energy_per_image_j == pytest.approx(0.64) and steady.power_w == pytest.approx(8.0) and steady.power_source == "VDD_IN"
    assert steady.rails_w == pytest.approx({"VDD_IN": 8.0, "VDD_SOC": 1.0})
    assert steady.gpu_mhz is not None and (steady.gpu_mhz.low, steady.gpu_mhz.median, steady.gpu_mhz.high) == (904.0, 920.0, 936.0)
    restless = sensed([trace(*readings)], [at(4, 36)], images=400, on_gpu=True, steady=False)
    assert restless.energy_per_image_j is None and "steady" in restless.energy_why_not and restless.power_w == pytest.approx(8.0)
    short = sensed([trace(*readings)], [at(4, 14)], images=100, on_gpu=True, steady=True)
    assert short.energy_per_image_j is None and short.energy_why_not == "10 s timed; by this sensor 30 s are needed"


def test_throttling_that_was_seen_and_that_nobody_could_see() -> None:
    hot = [
        Reading(throttle=frozenset({"power cap"} if index == 2 else ()), throttle_counts={"CPU core too hot": index}) for index in range(4)
    ]
    assert sensed([trace(*hot)], [at(1, 3)], images=1, on_gpu=True, steady=True).throttle == ("CPU core too hot", "power cap")
    assert sensed([trace(*hot)], [at(1, 3)], images=1, on_gpu=False, steady=True).throttle == ("CPU core too hot",)
    calm = [Reading(throttle=frozenset()) for _ in range(3)]
    assert sensed([trace(*calm)], [at(0, 2)], images=1, on_gpu=True, steady=True).throttle == ()
    assert sensed([trace(Reading(), Reading())], [at(0, 1)], images=1, on_gpu=True, steady=True).throttle is None


def test_the_sampler_reads_at_both_ends_and_in_between() -> None:
    class Counting:
        def __init__(self) -> None:
            self.reads = 0

        def read(self) -> Reading:
            self.reads += 1
            return Reading(cpu_mhz=float(self.reads))

    sensor = Counting()
    with Sampler([sensor], interval=0.001) as sampler:
        while sensor.reads < 5:
            pass
    found = sampler.trace
    assert [reading.cpu_mhz for reading in found.readings] == [float(number) for number in range(1, sensor.reads + 1)]
    assert list(found.moments) == sorted(found.moments) and len(found.moments) == sensor.reads >= 6
