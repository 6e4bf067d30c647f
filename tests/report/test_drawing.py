"""Drawing: places, ticks, labels that do not overlap, one colour per model."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gddctl.report.accuracy import change
from gddctl.report.colours import colour_by_model
from gddctl.report.curves import loss_figure, validation_figure
from gddctl.report.scatter import Place, scatter_figure
from gddctl.report.svg import Frame, spread_labels, ticks
from gddctl.report.timing import Timed, distribution_figure

AREA = Frame(10, 20, 100, 200, (0.0, 50.0), (0.0, 1.0))


def test_a_frame_puts_data_where_it_belongs() -> None:
    assert AREA.at(0, 0) == (10, 220) and AREA.at(50, 1) == (110, 20) and AREA.at(25, 0.5) == (60, 120)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e6))
def test_ticks_are_inside_rising_and_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    slack = span * 1e-6 + 1e-9
    assert all(low - slack <= tick <= low + span + slack for tick in found)
    assert all(a < b for a, b in pairwise(found)) and len(found) <= 7


def test_ticks_of_nothing() -> None:
    assert ticks(3.0, 3.0) == [3.0] and ticks(0.0, float("inf")) == [0.0]


@given(places=st.lists(st.floats(0, 300), min_size=1, max_size=8))
def test_labels_keep_their_distance_and_stay_inside(places: list[float]) -> None:
    found = spread_labels(places, 17, 0, 300)
    ordered = sorted(found)
    assert all(b - a >= 17 - 0.05 for a, b in pairwise(ordered))
    assert ordered[0] >= 0 and ordered[-1] <= 300.05
    assert [i for _, i in sorted(zip(places, range(len(places)), strict=True))] == [
        i for _, i in sorted(zip(found, range(len(found)), strict=True))
    ]


def test_roles_keep_their_colours_and_files_differ() -> None:
    files = [f"student-{index}" for index in range(4)]
    colours = colour_by_model(["student", *files, "teacher"])
    assert len(set(colours.values())) == 6
    assert colours["student"] == colour_by_model(["student"])["student"]


def test_the_box_is_made_of_the_samples() -> None:
    samples = np.linspace(1.0, 2.0, 1001)
    figure = distribution_figure([Timed("a", "#000", samples)])
    assert figure is not None
    rect = re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', figure)
    line = re.search(r'x2="(\d+)" y1="\d+" y2="\d+" stroke="var\(--faint\)"', figure)
    assert rect is not None and line is not None
    left, right = 215.0, float(line[1])
    scale = (right - left) / (np.percentile(samples, 99) * 1.12)
    assert float(rect[1]) == pytest.approx(left + 1.25 * scale, abs=0.02)
    assert float(rect[2]) == pytest.approx(0.5 * scale, abs=0.02)
    assert "slower" not in figure


def test_slow_outliers_are_told_not_dropped() -> None:
    figure = distribution_figure([Timed("a", "#000", np.array([1.0] * 999 + [40.0]))])
    assert figure is not None and "1 slower, up to 40.00 ms" in figure


def test_nothing_to_draw_is_none() -> None:
    assert distribution_figure([]) is None and scatter_figure([], [], {}) is None
    assert distribution_figure([Timed("a", "#000", np.array([]))]) is None
    assert validation_figure([{"stage": "a", "step": 1, "loss": 1.0}]) is None
    assert loss_figure([{"stage": "a", "step": 1, "val": {"miou": 0.5}, "seconds": 2.0}], "a") is None


def test_single_points_constants_and_broken_values_are_drawn_without_failing() -> None:
    assert validation_figure([{"stage": "a", "step": 0, "val": {"miou": 0.0}}]) is not None
    figure = loss_figure([{"stage": "a", "step": s, "loss": 0.0, "ce": float("nan"), "note": "x"} for s in (1, 2)], "a")
    assert figure is not None and ">ce<" not in figure and "nan" not in figure
    assert scatter_figure([Place("a", "#000", 0.0, 0.0)], [], {}) is not None


@pytest.mark.parametrize(("value", "way"), [(0.004, "same"), (-0.004, "same"), (0.006, "up"), (-0.006, "down"), (None, "same")])
def test_a_change_too_small_to_print_is_none(value: float | None, way: str) -> None:
    assert change(value).way == way
