"""Regressions told from noise: the exact test against known values and scipy-free enumeration, what compares, and what never may."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gddctl.core.config.bench import BenchConfig
from gddctl.core.errors import UsageError
from gddctl.core.holm import holm
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.latency_parts import Limit, Load
from gddctl.core.reports.regression import LEVEL
from gddctl.prove.rank_test import lower_bound, p_larger, pair_ratios, smallest_p
from gddctl.prove.regression import key_of, rates_of, regression, require_power, require_same_load

TURNS = (10.0, 10.1, 9.9, 10.2, 10.05, 9.95, 10.15, 9.85)


def row(model: str = "student", turns: tuple[float, ...] = TURNS, **changes: Any) -> LatencyRow:
    p50 = float(np.median(turns))
    made = LatencyRow(
        model=model, sha256="0" * 64, backend="onnxruntime-cpu", graph="deploy", precision="fp32", target="any", batch=1,
        input_size=(64, 96), p50_ms=p50, p90_ms=p50, p95_ms=p50, p99_ms=p50, mean_ms=p50, std_ms=0.1, min_ms=p50, samples=200,
        warmup_samples=100, preprocess_p50_ms=0.1, rounds_p50_ms=turns, miou=None, environment={"cpu": "X", "threads": "1"}, threads=1,
    )  # fmt: skip
    return replace(made, **changes)


def times(factor: float) -> tuple[float, ...]:
    return tuple(factor * value for value in reversed(TURNS))


def compare(old: list[LatencyRow], new: list[LatencyRow], max_slowdown: float = 0.05) -> Any:
    return regression(LatencyReport(tuple(old)), LatencyReport(tuple(new)), max_slowdown=max_slowdown, against="old.json")


@pytest.mark.parametrize(("values", "others"), [((3, 5, 9), (1, 2, 4, 8)), ((1, 1, 2), (1, 2, 2, 3)), ((4, 4), (4, 4, 4))])
def test_the_p_value_is_that_of_all_splits(values: tuple[int, ...], others: tuple[int, ...]) -> None:
    """By hand: of every way to name len(values) of the numbers "new", those with at least this rank sum; ties share their ranks."""
    pool = np.array([*values, *others], dtype=float)
    ranks = np.array([(pool < value).sum() + ((pool == value).sum() + 1) / 2 for value in pool])
    sums = [sum(ranks[list(chosen)]) for chosen in itertools.combinations(range(len(pool)), len(values))]
    expected = np.mean([total >= ranks[: len(values)].sum() - 1e-9 for total in sums])
    assert p_larger([float(value) for value in values], [float(value) for value in others]) == pytest.approx(expected)


def counted_plainly(values: list[float], others: list[float]) -> float:
    """Every subset sum of all doubled ranks in one table, as the text books do it."""
    pool = np.array([*values, *others])
    ranks = [int(2 * (pool < value).sum() + (pool == value).sum() + 1) for value in pool]
    ways = np.zeros((len(values) + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    return float(ways[-1, sum(ranks[: len(values)]) :].sum()) / math.comb(len(ranks), len(values))


@given(data=st.data(), values=st.integers(1, 10), others=st.integers(1, 10), grid=st.sampled_from([3, 12, 1000]))
@settings(max_examples=60, deadline=None)
def test_few_turns_are_counted_to_the_last_bit(data: st.DataObject, values: int, others: int, grid: int) -> None:
    """With many ties, some and hardly any; more new turns than old ones and fewer."""
    numbers = [float(value) for value in data.draw(st.lists(st.integers(1, grid), min_size=values + others, max_size=values + others))]
    assert p_larger(numbers[:values], numbers[values:]) == counted_plainly(numbers[:values], numbers[values:])


def test_many_turns_take_no_time_and_overflow_nowhere() -> None:
    """150 turns against 150 took minutes, and 600 against 600 have more ways than a float holds."""
    assert 0.0 < smallest_p(150, 150) < 1e-80 and smallest_p(600, 600) == 0.0
    rng, start = np.random.default_rng(0), time.monotonic()
    for count in (61, 150, 600):
        new, old = (mean + 0.05 * rng.normal(size=count) for mean in (1.1, 1.0))
        bound = lower_bound(new.tolist(), old.tolist(), LEVEL)
        assert bound is not None and 1.05 < bound < 1.1
    assert time.monotonic() - start < 10  # seen: 0.1 s
    assert p_larger([2.0] * 600, [2.0] * 600) == 1.0


def test_where_counting_ends_the_normal_distribution_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 against 60 both ways; partner: with few turns the two differ, which is why those are counted."""
    rng = np.random.default_rng(1)
    new, old = np.round(1.02 + 0.05 * rng.normal(size=60), 2).tolist(), np.round(1 + 0.05 * rng.normal(size=60), 2).tolist()
    few = ([9.0, 8.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0])
    counted, sure = p_larger(new, old), p_larger(*few)
    monkeypatch.setattr("gddctl.prove.rank_test.MOST_STEPS", 0)
    assert counted < 0.1 and p_larger(new, old) == pytest.approx(counted, rel=0.05)
    assert sure == smallest_p(4, 4) and p_larger(*few) > 1.05 * sure


def test_under_no_difference_p_is_no_smaller_than_it_says() -> None:
    rng = np.random.default_rng(0)
    found = np.array([p_larger(sample[:8].tolist(), sample[8:].tolist()) for sample in rng.normal(size=(2000, 16))])
    for level in (0.01, 0.05, 0.2):
        assert (found <= level).mean() <= level + 4 * np.sqrt(level * (1 - level) / 2000)  # four standard errors


def test_so_few_turns_that_nothing_can_be_shown() -> None:
    assert smallest_p(3, 3) == 0.05 > LEVEL and smallest_p(8, 8) == 1 / 12870
    assert p_larger([9.0, 8.0, 7.0], [1.0, 2.0, 3.0]) == smallest_p(3, 3)
    assert lower_bound([9.0, 8.0, 7.0], [1.0, 2.0, 3.0], LEVEL) is None


def test_the_bound_is_the_test_turned_around() -> None:
    new, old = list(times(1.3)), list(TURNS)
    bound = lower_bound(new, old, LEVEL)
    assert bound is not None and 1.2 < bound < 1.3
    assert p_larger([value / (bound - 1e-6) for value in new], old) <= LEVEL < p_larger([value / (bound + 1e-6) for value in new], old)
    assert np.median(pair_ratios(new, old)) == pytest.approx(1.3, rel=0.01)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_same_again_is_no_regression_and_a_slowed_copy_is_one() -> None:
    same = compare([row()], [row(turns=times(1.0))])
    assert same and same.findings[0].state == "no regression shown" and same.findings[0].ratio == pytest.approx(1.0, abs=0.01)
    slowed = compare([row()], [row(turns=times(1.2))])
    assert not slowed and slowed.regressions[0].slower_at_least == pytest.approx(1.17, abs=0.03)
    assert compare([row()], [row(turns=times(0.8))]).findings[0].state == "faster"


def test_what_is_allowed_is_no_regression_however_certain() -> None:
    """3 % slower in every turn: certain, and within the 5 % that are allowed; partner: not within 1 %."""
    assert compare([row()], [row(turns=times(1.03))])
    flat = tuple(10.0 + 0.001 * number for number in range(8))
    assert compare([row(turns=flat)], [row(turns=tuple(1.03 * value for value in flat))])
    assert not compare([row(turns=flat)], [row(turns=tuple(1.03 * value for value in flat))], max_slowdown=0.01)


def test_one_disturbed_turn_is_not_a_regression() -> None:
    disturbed = (*TURNS[:6], 30.0, 40.0)
    assert compare([row()], [row(turns=disturbed)])


def test_many_rows_are_adjusted_together() -> None:
    names = [f"m{number}" for number in range(20)]
    slower = (*times(1.07)[:5], 10.4, 10.3, 10.2)
    alone = compare([row()], [row(turns=slower)]).findings[0].p_slower
    among = compare([row(name) for name in names], [row(name, turns=slower if name == "m3" else TURNS) for name in names])
    assert among.findings[3].p_slower == pytest.approx(min(1.0, 20 * alone))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ({}, {"environment": {"cpu": "Y", "threads": "1"}}, "another CPU (X before, Y now)"),
        ({}, {"environment": {"cpu": "X", "gpu": "Orin"}}, "another GPU (none before, Orin now)"),
        ({}, {"threads": 2}, "1 threads before, 2 now"),
        ({"batch": 4}, {}, "only with another batch"),
        ({"backend": "openvino-cpu", "batch": 2}, {}, "only with another backend, batch"),
        ({"model": "other"}, {}, "not in the report of before"),
        ({"rounds_p50_ms": (1.0, 1.0)}, {}, "too few turns (2 before, 8 now)"),
    ],
)
def test_other_questions_are_not_compared(old: dict[str, Any], new: dict[str, Any], why: str) -> None:
    finding = compare([row(**old)], [row(turns=times(3.0), **new)]).findings[0]
    assert finding.state == "incomparable" and why in finding.incomparable


def test_a_machine_that_others_used_is_no_regression() -> None:
    """Twice as slow with half of the CPU: the machine. Partner: twice as slow with all of it: the file. A GPU's row does not need it."""
    alone, slower = row(busy_cpus=1.0), row(turns=times(2.0), busy_cpus=0.5)
    assert "had 1.00 CPUs before, 0.50 now" in compare([alone], [slower]).findings[0].incomparable
    assert "had 0.50 CPUs before, 1.00 now" in compare([slower], [alone]).findings[0].incomparable
    assert not compare([alone], [replace(slower, busy_cpus=0.97)])
    assert "fewer of its threads" not in compare([alone], [slower]).findings[0].incomparable
    both = compare([replace(alone, busy_cpus=1.9)], [replace(slower, busy_cpus=1.0)]).findings[0]  # of two threads: who knows?
    assert "fewer of its threads busy" in both.incomparable and "had 1.90 CPUs before" in both.incomparable
    assert "before it was not measured" in compare([row()], [slower]).findings[0].incomparable
    assert not compare([row()], [replace(slower, busy_cpus=0.97)])
    gpu: dict[str, Any] = {"backend": "tensorrt-cuda", "environment": {"cpu": "X", "gpu": "Orin"}}
    assert not compare([replace(alone, **gpu)], [replace(slower, **gpu)])


def on_gpu(facts: dict[str, str], turns: tuple[float, ...] = TURNS) -> LatencyRow:
    return row(turns=turns, backend="onnxruntime-cuda", environment={"cpu": "X", "threads": "1", **facts})


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ({}, {}, "the row of before and the row of now names no GPU"),
        ({}, {"gpu": "NVIDIA L4"}, "the row of before names no GPU"),
        ({"gpu": "NVIDIA L4"}, {"gpu": "n/a"}, "the row of now names no GPU"),
        ({"gpu": "NVIDIA H100"}, {"gpu": "NVIDIA L4"}, "another GPU (NVIDIA H100 before, NVIDIA L4 now)"),
        (
            {"gpu": "Graphics Device", "compute capability": "8.0"},
            {"gpu": "Graphics Device", "compute capability": "9.0"},
            "another GPU of the same name (compute capability 8.0 before, 9.0 now)",
        ),
    ],
)
def test_a_slower_gpu_is_no_regression_and_nor_is_one_that_nobody_named(old: dict[str, str], new: dict[str, str], why: str) -> None:
    """Four times as slow. Partner: on the same GPU, with another driver, it is a regression that names what else differs."""
    finding = compare([on_gpu(old)], [on_gpu(new, times(4.0))]).findings[0]
    assert finding.state == "incomparable" and why in finding.incomparable


def test_on_the_same_gpu_driver_libraries_and_settings_are_notes() -> None:
    same = {"gpu": "NVIDIA L4", "compute capability": "8.9"}
    old = LatencyReport((on_gpu({**same, "NVIDIA driver": "550.54", "cudnn": "n/a"}),), machine={"GPU power limit": "72 W"})
    new = LatencyReport((on_gpu({**same, "NVIDIA driver": "580.95", "cudnn": "9.5.1"}, times(4.0)),), machine={"GPU power limit": "40 W"})
    found = regression(old, new, max_slowdown=0.05, against="old.json")
    assert not found and found.findings[0].notes == ("NVIDIA driver 550.54 before, 580.95 now", "GPU power limit 72 W before, 40 W now")


def test_threads_left_idle_are_the_files_own_and_a_cpu_taken_is_not() -> None:
    """Of two threads one does nothing now: slower, and nobody waited. Partner: the same numbers, but its threads waited."""
    before = row(busy_cpus=1.9, waiting_cpus=0.02)
    lazy = row(turns=times(2.0), busy_cpus=1.0, waiting_cpus=0.01)
    assert compare([before], [lazy]).findings[0].state == "regression"
    robbed = replace(lazy, waiting_cpus=0.9)
    assert (
        "other work had 1 % of the CPU time that this process wanted before, 47 % now"
        in compare([before], [robbed]).findings[0].incomparable
    )
    assert "fewer of its threads" in compare([before], [replace(lazy, waiting_cpus=None)]).findings[0].incomparable, "not measured now"


def test_a_new_file_of_the_same_name_is_the_question_itself() -> None:
    assert not compare([row()], [row(turns=times(1.5), sha256="1" * 64)])


def test_rows_that_vanished_and_names_that_mean_two() -> None:
    gone = compare([row(), row("b")], [row()])
    assert [finding.incomparable for finding in gone.findings] == ["", "measured before, not now"]
    assert "several rows" in compare([row(), row()], [row()]).findings[0].incomparable


def test_under_load_the_rate_must_be_the_same_and_p99_is_judged() -> None:
    def loaded(rate: float, p99: tuple[float, ...]) -> LatencyRow:
        return loads(rate, rounds_p99_ms=p99)

    assert "50 calls a second before, 40 now" in compare([loaded(50.0, TURNS)], [loaded(40.0, TURNS)]).findings[0].incomparable
    found = compare([loaded(50.0, TURNS)], [loaded(50.0, times(1.5))])
    assert not found and found.findings[0].what == "p99 of each turn"


def loads(rate: float = 50.0, arrival: Any = "poisson", **changes: Any) -> LatencyRow:
    return row(scenario="offered-load", load=Load(arrival, 0, rate=rate, throughput=rate, service_p50_ms=10.0), **changes)


def test_every_row_under_load_has_the_rate_that_its_like_is_to_be_offered() -> None:
    old = LatencyReport((row(), loads(50.0), loads(20.0, model="b"), loads(-1.0, model="broken")))
    assert rates_of(old) == {key_of(loads()): 50.0, key_of(loads(model="b")): 20.0}


@pytest.mark.parametrize(
    ("old", "settings", "why"),
    [
        ([row()], {}, "its rows are of one-at-a-time, this bench's of offered-load; choose its --scenario"),
        ([loads()], {"scenarios": ("one-at-a-time",)}, "its rows are of offered-load, this bench's of one-at-a-time"),
        ([loads()], {"arrival": "fixed"}, "its calls arrive poisson, not fixed; --arrival poisson"),
        ([loads(), loads(20.0)], {"rate": 40.0}, "measured at 20, 50 calls a second, not at 40; leave --rate out"),
    ],
)
def test_calls_that_come_otherwise_are_refused_before_they_are_measured(old: list[LatencyRow], settings: dict[str, Any], why: str) -> None:
    """Partner: the same load, or none that is to be compared."""
    with pytest.raises(UsageError) as caught:
        require_same_load(LatencyReport(tuple(old)), BenchConfig(**{"scenarios": ("offered-load",), **settings}), "old.json")
    assert why in str(caught.value)
    same: list[dict[str, Any]] = [{}, {"rate": 50.0}, {"scenarios": ("one-at-a-time", "offered-load")}]
    for fine in same:
        require_same_load(LatencyReport((loads(),)), BenchConfig(**{"scenarios": ("offered-load",), **fine}), "old.json")
    require_same_load(LatencyReport((row(),)), BenchConfig(scenarios=("one-at-a-time",), arrival="fixed"), "old.json")


def test_what_else_changed_is_named() -> None:
    old = row(environment={"cpu": "X", "onnxruntime": "1.31.1"}, limit=Limit(macs_per_s=100.0), stable=True)
    new = row(environment={"cpu": "X", "onnxruntime": "1.32.0"}, limit=Limit(macs_per_s=80.0), stable=False)
    notes = compare([old], [new]).findings[0].notes
    assert notes == (
        "onnxruntime 1.31.1 before, 1.32.0 now", "warm-up did not settle now", "the machine's own matrix product is 20 % slower than then"
    )  # fmt: skip


def test_a_comparison_without_power_is_refused_before_it_is_measured() -> None:
    old = LatencyReport((row(turns=(1.0, 2.0, 3.0)),))
    with pytest.raises(UsageError, match="no test can tell") as caught:
        require_power(old, rounds=3, rows=1, place="old.json")
    rounds = int(str(caught.value).rpartition("--rounds ")[2])
    require_power(old, rounds=rounds, rows=1, place="old.json")
    assert smallest_p(rounds, 3) <= LEVEL < smallest_p(rounds - 1, 3)
    with pytest.raises(UsageError, match=r"old\.json again"):
        require_power(LatencyReport((row(turns=(1.0,)),)), rounds=8, rows=4, place="old.json")
    with pytest.raises(UsageError, match="no rows"):
        require_power(LatencyReport(()), rounds=8, rows=4, place="old.json")
