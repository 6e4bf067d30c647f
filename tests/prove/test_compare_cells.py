"""From cells to a verdict: what is held against what, over which seeds, and that wrong counts are refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import DataError
from gddctl.core.reports.comparison import Arm, Cell, Comparison, Pair, StepTime, StepTimes
from gddctl.core.reports.comparison_words import verdicts
from gddctl.prove.bootstrap import NAME, Tallies
from gddctl.prove.compare_cells import compare_cells
from gddctl.prove.saturation import Saturation, saturation

IMAGES, CLASSES = 40, 4
SEEDS = range(5)
LABELS = np.random.default_rng(0).integers(200, 400, (IMAGES, CLASSES))  # pixels by image and label
HARDNESS = 0.08 * np.random.default_rng(1).standard_normal((IMAGES, CLASSES))
Counts = dict[tuple[str, int, int], NDArray[np.int64]]


def counts_of(skill: float, rng: np.random.Generator) -> NDArray[np.int64]:
    right = rng.binomial(LABELS, np.clip(skill + 0.004 * rng.standard_normal() + HARDNESS, 0.05, 0.98))
    counts = np.zeros((IMAGES, CLASSES, CLASSES), np.int64)
    for label in range(CLASSES):
        counts[:, label, label] = right[:, label]
        counts[:, label, (label + 1) % CLASSES] = LABELS[:, label] - right[:, label]
    return counts


def trained(
    method: str, skill: float, counts: Counts, *, iterations: int = 800, seeds: Any = SEEDS, stream: int | None = None, **changes: Any
) -> list[Cell]:
    """Cells of one arm, their counts put into ``counts``; ``stream``: whose luck they have."""
    cells = []
    for seed in seeds:
        luck = sum(map(ord, method)) if stream is None else stream
        found = counts_of(skill, np.random.default_rng([seed, iterations, luck]))
        cell = Cell(method, seed, iterations, "done", miou=Tallies.of(found).miou, seconds=0.1 * iterations, step_seconds=0.1)
        cell = dataclasses.replace(cell, **changes)
        counts[cell.key] = found
        cells.append(cell)
    return cells


def compared(cells: list[Cell], counts: Mapping[tuple[str, int, int], NDArray[np.int64]], **changes: Any) -> Comparison:
    return compare_cells(cells, counts, **{"protocol": "p", "split": "val", "draws": 1000, **changes})


def pair_of(comparison: Comparison, first: str, second: str) -> Pair:
    found = comparison.pair(Arm(first, 800), Arm(second, 800))
    assert found is not None
    return found


def test_equal_methods_are_not_told_apart_and_different_ones_are() -> None:
    counts: Counts = {}
    cells = trained("none", 0.70, counts) + trained("kd", 0.70, counts) + trained("gdd", 0.75, counts)
    comparison = compared(cells, counts)
    assert comparison.outcome(pair_of(comparison, "kd", "none")) == "not told apart"
    better = pair_of(comparison, "gdd", "none")
    assert comparison.outcome(better) == "better" and better.images == IMAGES and comparison.images == IMAGES
    by_hand = [100 * (gdd.miou - none.miou) for gdd, none in zip(cells[10:], cells[:5], strict=True) if gdd.miou and none.miou]
    assert better.difference_points == pytest.approx(sum(by_hand) / 5) and 5 < better.difference_points < 8
    assert better.low_points is not None and better.high_points is not None
    assert better.low_points < better.difference_points < better.high_points
    assert comparison.rows[0].arm.method == "gdd" and comparison.is_first(comparison.rows[0])
    assert comparison.bootstrap.name == NAME and comparison.against_none(comparison.rows[0]) == better


def test_identical_cells_differ_by_nothing() -> None:
    counts: Counts = {}
    cells = trained("none", 0.7, counts, stream=3) + trained("kd", 0.7, counts, stream=3)
    same = pair_of(compared(cells, counts), "kd", "none")
    assert (same.difference_points, same.low_points, same.high_points, same.p) == (0, 0, 0, 1)
    assert compared(cells, counts).outcome(same) == "not told apart"


def test_seeds_are_paired() -> None:
    """A seed that is good for both methods says nothing of their difference; mixed up, it hides it."""
    counts: Counts = {}
    cells = trained("none", 0.70, counts)
    for cell in cells:  # the same luck and a little more skill
        lifted = counts[cell.key].copy()
        for label in range(CLASSES):
            moved = np.minimum(3, lifted[:, label, (label + 1) % CLASSES])
            lifted[:, label, label] += moved
            lifted[:, label, (label + 1) % CLASSES] -= moved
        counts[("kd", cell.seed, 800)] = lifted
    kd = [Cell("kd", seed, 800, "done", miou=Tallies.of(counts[("kd", seed, 800)]).miou) for seed in SEEDS]
    right = compared(cells + kd, counts)
    assert right.outcome(pair_of(right, "kd", "none")) == "better"
    turned = [dataclasses.replace(cell, seed=(cell.seed + 1) % 5) for cell in kd]
    mixed = {key if key[0] == "none" else ("kd", (key[1] + 1) % 5, 800): value for key, value in counts.items()}
    wrong = compared(cells + turned, mixed)
    assert pair_of(wrong, "kd", "none").difference_points == pytest.approx(pair_of(right, "kd", "none").difference_points)
    narrow, wide = (
        (pair.high_points or 0) - (pair.low_points or 0) for pair in (pair_of(right, "kd", "none"), pair_of(wrong, "kd", "none"))
    )
    assert narrow < 0.5 * wide


def test_a_pair_does_not_depend_on_who_else_is_there_nor_on_the_order_of_cells() -> None:
    counts: Counts = {}
    two = trained("none", 0.70, counts) + trained("gdd", 0.72, counts)
    alone = pair_of(compared(two, counts), "gdd", "none")
    more = trained("cwd", 0.73, counts) + two[::-1]
    assert pair_of(compared(more, counts), "gdd", "none") == alone
    assert pair_of(compared(two, counts, seed=1), "gdd", "none") != alone


def test_failed_cells_leave_the_others_and_their_seeds_are_left_out_of_pairs() -> None:
    counts: Counts = {}
    cells = trained("none", 0.70, counts) + trained("gdd", 0.75, counts)
    cells[7] = Cell("gdd", 2, 800, "failed", error="loss is NaN")
    comparison = compared(cells, counts)
    pair = pair_of(comparison, "gdd", "none")
    assert pair.seeds == (0, 1, 3, 4) and pair.left_out == (2,)
    row = comparison.row(Arm("gdd", 800))
    assert row is not None and row.failed == ((2, "loss is NaN"),) and row.seeds == (0, 1, 3, 4)
    words = " ".join(verdicts(comparison))
    assert "gdd failed with seed 2: loss is NaN." in words and "without seed 2 that only one of them has" in words
    dead = [*trained("none", 0.7, counts), *(Cell("gdd", seed, 800, "failed", error="disk full") for seed in SEEDS)]
    gone = compared(dead, counts)
    assert gone.pairs == () and gone.rows[-1].mean is None and gone.rows[-1].arm.method == "gdd"


def test_no_common_seed_is_no_pair() -> None:
    counts: Counts = {}
    cells = trained("none", 0.7, counts, seeds=(0, 1)) + trained("gdd", 0.8, counts, seeds=(2, 3))
    comparison = compared(cells, counts)
    assert comparison.pairs == () and "no seed in common" in " ".join(verdicts(comparison))


def test_one_seed_covers_images_alone_and_says_so() -> None:
    counts: Counts = {}
    comparison = compared(trained("none", 0.70, counts, seeds=(0,)) + trained("gdd", 0.80, counts, seeds=(0,)), counts)
    pair = pair_of(comparison, "gdd", "none")
    assert not pair.covers_seeds and pair.low_points is not None and pair.low_points > 0
    words = " ".join(verdicts(comparison))
    assert "one seed: the interval does not cover seeds" in words and "is better" not in words and "is first at" not in words


def test_without_counts_the_interval_covers_seeds_alone() -> None:
    counts: Counts = {}
    cells = trained("none", 0.70, counts) + trained("gdd", 0.75, counts)
    some = {key: value for key, value in counts.items() if key != ("gdd", 4, 800)}
    pair = pair_of(compared(cells, some), "gdd", "none")
    assert pair.images == 0 and pair.low_points is not None and "does not cover images" in " ".join(verdicts(compared(cells, some)))
    whole = pair_of(compared(cells, counts), "gdd", "none")
    assert whole.images == IMAGES and whole.difference_points == pair.difference_points


class Once(Mapping[tuple[str, int, int], NDArray[np.int64]]):
    """Counts that lie in files: each may be asked for once."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.asked: list[tuple[str, int, int]] = []

    def __getitem__(self, key: tuple[str, int, int]) -> NDArray[np.int64]:
        assert key not in self.asked
        self.asked.append(key)
        return self.counts[key]

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


def test_counts_are_read_once_each() -> None:
    counts: Counts = {}
    cells = trained("none", 0.70, counts) + trained("gdd", 0.75, counts) + trained("kd", 0.72, counts)
    lazy = Once(counts)
    compared(cells, lazy)
    assert sorted(lazy.asked) == sorted(counts)


def test_counts_of_other_images_or_another_cell_are_refused() -> None:
    counts: Counts = {}
    cells = trained("none", 0.70, counts) + trained("gdd", 0.75, counts)
    compared(cells, counts)
    key = ("none", 3, 800)
    with pytest.raises(DataError, match=r"none, seed 3, 800 iterations: the labels of image 0 have other pixel counts"):
        compared(cells, {**counts, key: counts[key][::-1]})
    with pytest.raises(DataError, match=r"none, seed 3, 800 iterations: counts of 39 images and 4 classes, expected 40 and 4"):
        compared(cells, {**counts, key: counts[key][1:]})
    with pytest.raises(DataError, match=r"none, seed 3, 800 iterations: its counts give mIoU 0\.\d+, its score is 0\.\d+"):
        compared(cells, {**counts, key: counts[("none", 4, 800)]})


def kinds(comparison: Comparison) -> list[str]:
    return sorted(f"{pair.kind}: {pair.first.method} {pair.first.iterations}, {pair.second.method}" for pair in comparison.pairs)


def test_an_undistilled_student_with_the_same_seconds_is_held_against_the_method() -> None:
    counts: Counts = {}
    cells = [
        *trained("none", 0.70, counts),
        *trained("none", 0.78, counts, iterations=1390),
        *trained("none", 0.80, counts, iterations=1600),
        *trained("gdd", 0.72, counts, step_seconds=0.174),  # 800 steps of it cost 1392 of none's
    ]
    comparison = compared(cells, counts)
    assert kinds(comparison) == [
        "against none: gdd 800, none", "equal seconds: none 1390, gdd",
        "same method: none 1390, none", "same method: none 1600, none", "same method: none 1600, none",  # against 1390 and 800
    ]  # fmt: skip
    assert re.search(
        r"none, trained for 1390 iterations, by the clock at most 5 % longer than gdd, is better than gdd", " ".join(verdicts(comparison))
    )
    dearer = [dataclasses.replace(cell, step_seconds=0.167) if cell.method == "gdd" else cell for cell in cells]
    assert "equal seconds: none 1390, gdd" in kinds(compared(dearer, counts)), "139 s against 133.6 s: 4 % longer, and the sentence says so"
    cheap = [cell if cell.method == "none" else dataclasses.replace(cell, step_seconds=0.11) for cell in cells]
    assert "equal seconds" not in " ".join(kinds(compared(cheap, counts)))
    times = StepTimes("turns", (StepTime("none", 0.1, 0.1, 0.1), StepTime("gdd", 0.174, 0.17, 0.18)))
    assert kinds(compared(cheap, counts, step_times=times)) == kinds(comparison)  # the measured step counts, not the cells' own


def test_arms_of_equal_seconds_compare_though_their_iterations_differ() -> None:
    counts: Counts = {}
    none = trained("none", 0.75, counts, iterations=1390, budget="seconds")
    cells = none + trained("gdd", 0.72, counts, budget="seconds")
    comparison = compared(cells, counts)
    assert kinds(comparison) == ["against none: gdd 800, none"] and "at equal seconds" in verdicts(comparison)[0]
    apart = [dataclasses.replace(cell, budget="iterations") for cell in none] + cells[5:]
    twice = [*cells, *trained("none", 0.75, counts, iterations=700, budget="seconds")]
    with pytest.raises(DataError, match="none: 700 and 1390 iterations, both for equal seconds"):
        compared(twice, counts)
    assert "against none: gdd 800, none" not in kinds(compared(apart, counts))


def test_a_cell_that_serves_two_budgets_is_held_against_the_longer_undistilled_student_once() -> None:
    counts: Counts = {}
    dear = trained("gdd", 0.72, counts, step_seconds=0.18)
    longer = trained("none", 0.75, counts, iterations=1390)
    equal = [*dear, *trained("none", 0.74, counts)]
    by_seconds = [dataclasses.replace(cell, budget="seconds") for cell in (*dear, *longer)]

    def of(cells: list[Cell]) -> list[tuple[str, int, str, int]]:
        return [(x.first.method, x.first.iterations, x.second.method, x.second.iterations) for x in compared(cells, counts).pairs]

    beside = [("gdd", 800, "none", 800), ("none", 1390, "none", 800)]
    assert sorted(of([*equal, *longer])) == sorted([*beside, ("none", 1390, "gdd", 800)])
    assert sorted(of([*equal, *by_seconds])) == sorted([*beside, ("gdd", 800, "none", 1390)])


def grown(short: float, long: float, iterations: int = 1600) -> Comparison:
    counts: Counts = {}
    return compared(trained("none", short, counts) + trained("none", long, counts, iterations=iterations), counts)


def test_saturation_is_established_by_the_interval() -> None:
    stopped = saturation(grown(0.80, 0.80), limit_points=3.0)
    assert stopped and stopped.verdict == "stopped" and "it has stopped improving, to within 3 points" in stopped.sentence
    improving = saturation(grown(0.60, 0.80), limit_points=3.0)
    assert improving is not None and not improving and "it was still improving, by more than 3 points" in improving.sentence
    open_ = saturation(grown(0.80, 0.80), limit_points=0.001)
    assert open_ is not None and open_.verdict == "not known" and "is not established" in open_.sentence
    near = saturation(grown(0.80, 0.80, iterations=900), limit_points=3.0)
    assert near is not None and near.verdict == "not known" and "less than 1.5 times the iterations" in near.sentence


def lengths(*iterations: int) -> Comparison:
    counts: Counts = {}
    return compared([cell for length in iterations for cell in trained("none", 0.8, counts, iterations=length)], counts)


@pytest.mark.parametrize(
    ("iterations", "held_against", "pairs"),
    [
        ((1000, 2000, 2600), 1000, 3),  # 2000 is too near
        ((2600, 1000, 1200, 2000), 1200, 4),  # the longest of those that are far enough
        ((1000, 2000, 4000), 2000, 2),  # the neighbour will do, and is asked for once
        ((2000, 2600), 2000, 1),  # nothing is: not known
    ],
)
def test_the_longest_training_is_held_against_one_that_is_far_enough_below_it(
    iterations: tuple[int, ...], held_against: int, pairs: int
) -> None:
    comparison = lengths(*iterations)
    assert len(comparison.pairs) == pairs and all(pair.kind == "same method" for pair in comparison.pairs)
    found = saturation(comparison, limit_points=3.0)
    assert found is not None and (found.pair.first.iterations, found.pair.second.iterations) == (max(iterations), held_against)
    assert found.verdict == ("stopped" if len(iterations) > 2 else "not known")


@pytest.mark.parametrize(
    ("gain", "low", "high", "verdict"),
    [(0.2, -0.1, 0.4, "stopped"), (0.2, -0.6, 1.0, "not known"), (0.9, 0.3, 1.5, "not known"), (0.9, 0.6, 1.2, "improving")],
)
def test_the_whole_interval_has_to_be_on_one_side_of_the_limit(gain: float, low: float, high: float, verdict: str) -> None:
    pair = Pair(Arm("none", 1600), Arm("none", 800), (0, 1, 2), (), 101, gain, low, high, 0.5)
    assert Saturation(pair, 0.5, "trainings").verdict == verdict


def test_one_seed_establishes_no_saturation() -> None:
    counts: Counts = {}
    cells = trained("none", 0.8, counts, seeds=(0,)) + trained("none", 0.8, counts, seeds=(0,), iterations=1600)
    found = saturation(compared(cells, counts), limit_points=3.0)
    assert found is not None and found.verdict == "not known" and "with one seed" in found.sentence


def test_without_a_second_length_the_curves_halves_are_read() -> None:
    counts: Counts = {}
    cells = trained("none", 0.8, counts)
    flat = [dataclasses.replace(cell, curve=((400, 40.0, 0.60), (800, 80.0, 0.60 + 0.0001 * cell.seed))) for cell in cells]
    found = saturation(compared(flat, counts))
    assert found and found.source == "curve" and "from 400 to 800 iterations" in found.sentence and "read from one curve" in found.sentence
    steep = [dataclasses.replace(cell, curve=((400, 40.0, 0.50), (800, 80.0, 0.60 + 0.0001 * cell.seed))) for cell in cells]
    risen = saturation(compared(steep, counts))
    assert risen is not None and risen.verdict == "improving"
    assert saturation(compared(cells, counts)) is None and saturation(compared(flat, counts), "gdd") is None
