"""The poly schedule against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gddctl.distill.schedule import PolySchedule


def test_poly_without_floor_follows_the_formula() -> None:
    schedule = PolySchedule(base=0.01, total=100, power=0.9)
    assert schedule(0) == 0.01
    assert schedule(50) == pytest.approx(0.01 * 0.5**0.9)
    assert schedule(99) == pytest.approx(0.01 * 0.01**0.9)


def test_floor_is_reached_at_the_end_as_in_mmsegmentation() -> None:
    # (0.01 - 0.0001) * (1 - 20000/40000)^0.9 + 0.0001 = 0.0099 * 0.535886731 + 0.0001
    schedule = PolySchedule(base=0.01, total=40_000, power=0.9, floor=1e-4)
    assert schedule(20_000) == pytest.approx(0.0054052786, rel=1e-7)
    assert schedule(40_000) == pytest.approx(1e-4)
    assert schedule(50_000) == pytest.approx(1e-4)  # past the end it stays there


def test_warm_up_grows_linearly_to_the_poly_value() -> None:
    with_warm_up, without = PolySchedule(1.0, 100, warmup=4), PolySchedule(1.0, 100)
    assert [with_warm_up(step) / without(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_a_base_below_the_floor_stays_constant() -> None:
    schedule = PolySchedule(base=5e-5, total=10, floor=1e-4)
    assert {schedule(step) for step in range(10)} == {5e-5}


@given(st.integers(1, 1000), st.floats(0, 3), st.floats(0, 0.01))
def test_it_never_grows(total: int, power: float, floor: float) -> None:
    schedule = PolySchedule(0.01, total, power, floor)
    values = [schedule(step) for step in range(total + 1)]
    assert values == sorted(values, reverse=True)
