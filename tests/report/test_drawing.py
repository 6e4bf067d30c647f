"""Drawing: places, ticks, labels that do not overlap, one colour per model."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gddctl.core.config.sections import Limits
from gddctl.core.reports.parity import Rung
from gddctl.report.accuracy import change
from gddctl.report.colours import DARK, LIGHT, colour_by_model, theme
from gddctl.report.curves import loss_figure, validation_figure
from gddctl.report.ladder_figure import ladder_figure
from gddctl.report.names import fit, name
from gddctl.report.scatter import Place, pareto_front, scatter_figure
from gddctl.report.svg import Frame, spread_labels, ticks
from gddctl.report.timing import Timed, distribution_figure, tail_figure

AA = 4.5  # WCAG 2.2, success criterion 1.4.3, of text
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


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_that_carries_words_can_be_read(colours: dict[str, str]) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") < AA  # the formula, and what fails it
    for kind, colour in colours.items():
        if kind not in ("rule", "paper", "wash"):
            assert contrast(colour, colours["paper"]) >= AA, kind
    assert contrast(colours["ink"], colours["wash"]) >= AA and contrast(colours["faint"], colours["wash"]) >= AA


def test_both_themes_name_the_same_colours() -> None:
    assert LIGHT.keys() == DARK.keys() and all(f"--{name}:" in theme() for name in LIGHT)


FAST, GOOD, SLOW, POOR = (Place("fast", "", 1, 0.5), Place("good", "", 3, 0.6), Place("slow", "", 5, 0.55), Place("poor", "", 2, 0.5))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20))
def test_the_front_is_exactly_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    places = [Place(str(index), "", float(x), y / 10) for index, (x, y) in enumerate(points)]

    def beaten(place: Place) -> bool:
        return any(
            other.p50_ms <= place.p50_ms and other.miou >= place.miou and (other.p50_ms, other.miou) != (place.p50_ms, place.miou)
            for other in places
        )

    assert {place.title for place in pareto_front(places)} == {place.title for place in places if not beaten(place)}


def test_the_front_is_filled_and_the_beaten_are_hollow() -> None:
    figure = scatter_figure([FAST, GOOD, SLOW, POOR], [], {})
    assert figure is not None and "On the Pareto front: fast, good." in figure
    hollow = re.findall(r'<circle [^>]*fill="var\(--paper\)"[^>]*><title>(\w+):', figure)
    assert hollow == ["slow", "poor"]


def test_the_tail_is_stretched_by_nines() -> None:
    samples = np.concatenate([np.full(990, 1.0), np.full(10, 9.0)])
    figure = tail_figure([Timed("a", "#123456", samples)])
    assert figure is not None
    path = re.search(r'd="M([^"]*)" fill="none" stroke="#123456"', figure)
    assert path is not None
    places = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path[1])]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    low, high = places[0][1], places[-1][1]
    base = 20 + 250  # where 0 ms is
    assert (base - high) / (base - low) == pytest.approx(9, abs=0.05)
    ticks_at = [float(x) for x in re.findall(r'<line x1="([\d.]+)" x2="\1" y1="20"', figure)]
    assert ticks_at[1] - ticks_at[0] == pytest.approx((ticks_at[2] - ticks_at[0]) * 0.30103, abs=0.05)  # p50, p90: log10 of 2 and of 10


def test_the_density_is_highest_where_most_samples_are() -> None:
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(2.0, 0.05, 900), rng.normal(6.0, 0.05, 100)])
    figure = str(distribution_figure([Timed("a", "#123456", samples)]))
    outline = re.search(r'd="M([^"]*)Z" fill="#123456" fill-opacity="0.25"', figure)
    assert outline is not None
    places = [tuple(map(float, pair.split())) for pair in outline[1].split("L")]
    peak = min(places, key=lambda place: place[1])
    scale = (720 - 215 - 20) / (float(np.percentile(samples, 99)) * 1.12)
    assert peak[0] == pytest.approx(215 + 2.0 * scale, abs=0.15 * scale)  # three standard deviations of the samples
    second = min((place for place in places if place[0] > 215 + 4 * scale), key=lambda place: place[1])
    assert second[0] == pytest.approx(215 + 6.0 * scale, abs=0.15 * scale) and second[1] > peak[1] + 10


def rung(agreement: float, limit: float | None = 0.975, *, emulated: bool = False) -> Rung:
    limits = Limits(min_agreement=limit)
    return Rung(
        "top", "below", "a", "b", "int8", 4, agreement, 0.5, 0.5, None, None, None, None, None, None, 0, limits, emulated=emulated
    )  # fmt: skip


def test_the_ladder_goes_in_powers_of_ten_and_keeps_its_verdicts() -> None:
    figure = str(ladder_figure([rung(0.99), rung(0.9), rung(1.0), rung(0.5, None, emulated=True)]))
    widths = [float(width) for width in re.findall(r'<rect x="270" y="[\d.]+" width="([\d.]+)" height="10"', figure)]
    tens = (widths[1] - widths[0]) / 1  # from 1 % to 10 %
    assert widths[0] == pytest.approx(4 * tens, rel=1e-3) and widths[2] == 2.0  # from a millionth to 1 %; nothing changed: a sliver
    assert figure.count("✓ passed") == 3 and figure.count("✗ failed") == 1 and "passed, emulated" in figure
    assert figure.count('fill="var(--ink)"/>') == 3  # marks of limits: the last has none
    assert ladder_figure([]) is None


@given(words=st.text(min_size=1, max_size=120), width=st.floats(60, 400), lines=st.sampled_from([1, 2]))
def test_names_never_outgrow_their_place(words: str, width: float, lines: int) -> None:
    rows, size = fit(words, width, lines=lines)
    assert 1 <= len(rows) <= lines and all(0.64 * size * len(row) <= width + 0.01 for row in rows)
    assert size <= 12 and name(0, 0, words, width).startswith("<g>")


def test_a_name_that_is_cut_keeps_both_ends() -> None:
    rows, _ = fit("begin" + "x" * 80 + "finish", 200, lines=1)
    assert rows[0].startswith("begin") and rows[0].endswith("finish") and "…" in rows[0]
