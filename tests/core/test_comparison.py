"""What a comparison says is computed from its numbers: every sentence has numbers that call for it, and a partner that does not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.holm import holm
from gddctl.core.reports.comparison import (
    Arm,
    Bootstrap,
    Cell,
    Comparison,
    MethodRow,
    Pair,
    StepTime,
    StepTimes,
    Teacher,
)
from gddctl.core.reports.comparison_table import method_table, pair_table
from gddctl.core.reports.comparison_words import figure, measured, pair_sentence, verdicts

SEEDS = (0, 1, 2, 3, 4)
SCORES = {"gdd": 0.448, "cwd": 0.445, "none": 0.430}


def row(method: str, mean: float | None = None, *, iterations: int = 800, seeds: tuple[int, ...] = SEEDS, **changes: Any) -> MethodRow:
    """Scores one tenth of a point apart around ``mean``."""
    middle = SCORES.get(method, 0.44) if mean is None else mean
    scores = tuple((seed, middle + 0.001 * (index - (len(seeds) - 1) / 2)) for index, seed in enumerate(seeds))
    given = MethodRow(
        arm=Arm(method, iterations), scores=scores, failed=(), seconds=100.0, step_seconds=0.125, peak_memory_mb=512.0, extra_parameters=0
    )
    return dataclasses.replace(given, **changes)


def pair(first: str, second: str, difference: float, low: float | None, high: float | None, p: float | None, **changes: Any) -> Pair:
    made = Pair(Arm(first, 800), Arm(second, 800), SEEDS, (), 101, difference, low, high, p)
    return dataclasses.replace(made, **changes)


PAIRS = (
    pair("gdd", "cwd", 0.3, -0.4, 1.0, 0.4),
    pair("gdd", "none", 1.8, 0.9, 2.7, 0.002),
    pair("cwd", "none", 1.5, 0.2, 2.8, 0.03),
)


def made(**changes: Any) -> Comparison:
    given = Comparison(
        protocol="single scale",
        split="val",
        images=101,
        bootstrap=Bootstrap("some bootstrap", 1000, 0),
        teacher=Teacher("resnet34", 0.52, 3600.0),
        step_times=StepTimes("10 rounds", (StepTime("none", 0.1, 0.09, 0.12),)),
        rows=(row("gdd", curves=((0, ((400, 50.0, 0.3), (800, 100.0, 0.44))),)), row("cwd", failed=((7, "NaN in loss"),)), row("none")),
        pairs=PAIRS,
        notes=("No ImageNet weights.",),
    )
    return dataclasses.replace(given, **changes)


def said(**changes: Any) -> str:
    return " ".join(verdicts(made(**changes)))


def test_a_comparison_survives_json_and_its_verdict_is_not_read_back() -> None:
    value = json.loads(json.dumps(made().to_json(), allow_nan=False))
    assert value["pairs"][1]["outcome"] == "better" and value["rows"][0]["mean"] == pytest.approx(0.448)
    assert Comparison.from_json(value) == made()
    value["pairs"][0] |= {"outcome": "better", "p_holm": 0.0, "kind": "against none"}
    value["rows"][0]["mean"] = 0.99
    assert Comparison.from_json(value) == made()
    changed = {**value, "pairs": [{**value["pairs"][0], "p": 0.001}]}
    assert Comparison.from_json(changed) != made()
    with pytest.raises(ValueError, match="schema 99"):
        Comparison.from_json({**value, "schema": 99})
    bare = made(teacher=None, step_times=None)
    assert Comparison.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_a_cell_survives_json_and_a_file_may_hold_more() -> None:
    cell = Cell("gdd", 3, 800, "done", miou=0.4, seconds=1.5, curve=((400, 0.7, 0.3), (800, 1.4, 0.4)), budget="seconds")
    value = json.loads(json.dumps(cell.to_json()))
    assert Cell.from_json({**value, "started": "today"}) == cell
    assert Cell.from_json(value | {"seed": 4}) != cell
    assert cell.scored and not dataclasses.replace(cell, state="failed").scored and not dataclasses.replace(cell, miou=None).scored


def test_spread_is_the_sample_standard_deviation() -> None:
    three = row("gdd", scores=((0, 0.40), (1, 0.41), (2, 0.42)))
    assert three.mean == pytest.approx(0.41) and three.std_points == pytest.approx(1.0)  # sqrt((1 + 0 + 1) / 2) points
    assert row("gdd", scores=((0, 0.4),)).std_points is None and row("gdd", scores=()).mean is None


def test_holm_adjusts_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 3 x .01, then 2 x .03, never falling, 4 x .005
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9]) and holm([]) == []


def test_families_are_apart_and_a_pair_that_is_alone_of_its_kind_is_not_adjusted() -> None:
    longer = dataclasses.replace(pair("none", "none", 0.2, 0.1, 0.3, 0.04), first=Arm("none", 1600))
    dearer = dataclasses.replace(pair("none", "gdd", 2.0, 1.0, 3.0, 0.04), first=Arm("none", 1600))
    comparison = made(pairs=(*PAIRS, longer, dearer))
    assert [item.kind for item in comparison.pairs] == ["between methods", "against none", "against none", "same method", "equal seconds"]
    assert [comparison.p_holm(item) for item in comparison.pairs] == pytest.approx([0.4, 0.004, 0.03, 0.04, 0.04])
    elsewhere = dataclasses.replace(PAIRS[1], first=Arm("gdd", 99, "seconds"), second=Arm("none", 120, "seconds"))
    assert elsewhere.kind == "against none" and made(pairs=(*PAIRS, elsewhere)).family(elsewhere) == (elsewhere,)


def across(method: str, p: float) -> Pair:
    """``none`` of 1390 iterations against 800 of ``method``, which take as long."""
    return Pair(Arm("none", 1390), Arm(method, 800), SEEDS, (), 101, 1.0, 0.1, 1.9, p)


def test_pairs_of_equal_seconds_are_adjusted_for_each_other_and_so_are_lengths() -> None:
    p_values = {"kd": 0.03, "cwd": 0.02, "gdd": 0.01, "mgd": 0.2}
    rows = (*(row(method) for method in p_values), row("none"), row("none", iterations=1390))
    asked = tuple(across(method, p) for method, p in p_values.items())
    comparison = made(rows=rows, pairs=(*PAIRS, *asked))
    assert [comparison.p_holm(item) for item in asked] == pytest.approx([0.06, 0.06, 0.04, 0.2])  # 2 x .03, 3 x .02, 4 x .01
    assert [comparison.outcome(item) for item in asked] == ["better before Holm", "better before Holm", "better", "not told apart"]
    assert "allowing for 4 such comparisons (Holm, p 0.060)" in pair_sentence(comparison, asked[0])
    assert [comparison.p_holm(item) for item in PAIRS] == [made().p_holm(item) for item in PAIRS], "other questions are another family"

    lengths = tuple(dataclasses.replace(across("x", p), first=Arm(name, 1600), second=Arm(name, 800)) for name, p in p_values.items())
    assert {item.kind for item in lengths} == {"same method"}
    both = made(rows=rows, pairs=(*asked, *lengths))
    assert [both.p_holm(item) for item in (*asked, *lengths)] == pytest.approx([0.06, 0.06, 0.04, 0.2] * 2)


def test_equal_methods_are_seldom_called_different_at_equal_seconds() -> None:
    """Eight methods that are as good as ``none`` given their seconds: in how many studies is one of them said to be better or worse."""
    random, methods, studies = np.random.default_rng(0), [f"m{index}" for index in range(8)], 1000
    said_so = {"alone": 0, "together": 0}
    for _ in range(studies):
        undistilled = random.normal(size=5)  # all eight are held against the same five trainings
        pairs = tuple(across(method, _two_sided(random.normal(size=5) - undistilled)) for method in methods)
        study = made(rows=(row("none", iterations=1390), *(row(method) for method in methods)), pairs=pairs)
        said_so["together"] += any(study.outcome(item) == "better" for item in pairs)
        said_so["alone"] += any(item.outcome() == "better" for item in pairs)
    assert said_so["alone"] > 0.15 * studies, "the studies hold no false finding: this shows nothing"
    assert said_so["together"] < 0.08 * studies  # 5 % and four standard errors


def _two_sided(differences: NDArray[np.float64]) -> float:
    """p of a paired t test over five seeds: the tail of Student's t with 4 degrees of freedom, in closed form."""
    t = abs(differences.mean()) / (differences.std(ddof=1) / 5**0.5)
    x = t / (4 + t * t) ** 0.5
    return float(1 - x * (3 - x * x) / 2)


def test_the_two_sentences_that_a_reader_came_for() -> None:
    comparison = made()
    assert pair_sentence(comparison, PAIRS[1]) == "gdd is better than none by 1.8 points (95 % interval 0.9 to 2.7, 5 seeds)."
    assert (
        pair_sentence(comparison, PAIRS[0])
        == "gdd and cwd are not told apart by these seeds (difference 0.3, interval -0.4 to 1.0, 5 seeds)."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "gdd is better than none by 1.8 points (95 % interval 0.9 to 2.7"),
        ({"difference_points": -1.8, "low_points": -2.7, "high_points": -0.9}, "is worse than none by 1.8 points (95 % interval 0.9"),
        ({"p": 0.2, "low_points": -0.9}, "not told apart by these seeds (difference 1.8, interval -0.9 to 2.7"),
        ({"p": 0.04}, "0.9 to 2.7, 5 seeds); allowing for 2 such comparisons (Holm, p 0.060)"),
        ({"seeds": (0,)}, "scored above none by 1.8 points (95 % interval 0.9 to 2.7, one seed: the interval does not cover seeds)"),
        ({"seeds": (0,), "p": 0.3}, "not told apart by this seed"),
        ({"seeds": (0,), "p": None, "low_points": None, "high_points": None}, "with one seed: how sure that is, is not known"),
        ({"seeds": (0, 1, 2), "left_out": (3, 4)}, "3 seeds, without seeds 3 and 4 that only one of them has"),
        ({"images": 0}, "no counts: the interval does not cover images"),
    ],
)  # fmt: skip
def test_each_sentence_has_numbers_that_call_for_it(changes: dict[str, Any], words: str) -> None:
    other = dataclasses.replace(PAIRS[2], p=0.03)
    judged = dataclasses.replace(PAIRS[1], **changes)
    sentence = pair_sentence(made(pairs=(PAIRS[0], judged, other)), judged)
    assert words in sentence
    if changes:
        assert words not in pair_sentence(made(), PAIRS[1])


@pytest.mark.parametrize(("difference", "outcome"), [(1.8, "above with one seed"), (-1.8, "below with one seed")])
def test_with_one_seed_nothing_is_called_better_or_worse_in_any_form(difference: float, outcome: str) -> None:
    sure = dataclasses.replace(PAIRS[1], seeds=(0,), difference_points=difference, p=0.0001)
    comparison = made(pairs=(sure,))
    assert comparison.outcome(sure) == outcome == pair_table(comparison).rows[0][-1]
    assert comparison.to_json()["pairs"][0]["outcome"] == outcome
    two = made(pairs=(dataclasses.replace(sure, seeds=(0, 1)),))
    assert two.outcome(two.pairs[0]) in ("better", "worse"), "it is the number of seeds that the word goes by"
    unclear = dataclasses.replace(sure, p=0.3)
    assert made(pairs=(unclear,)).outcome(unclear) == "not told apart"


def test_first_is_established_against_every_other_or_not_said() -> None:
    assert said().startswith(
        "gdd has the highest mean at 800 iterations, 44.80 % mIoU, but that it is first is not established against cwd."
    )
    clear = dataclasses.replace(PAIRS[0], low_points=0.1, p=0.01)
    assert said(pairs=(clear, *PAIRS[1:])).startswith("gdd is first at 800 iterations, with 44.80 % mIoU: better than every other.")
    assert "not established against cwd." in said(pairs=PAIRS[1:])  # no seed in common
    alone = tuple(dataclasses.replace(item, seeds=(0,), p=0.001) for item in PAIRS)
    assert "but that it is first is not established: one seed cannot." in said(pairs=alone)
    turned = dataclasses.replace(clear, first=Arm("cwd", 800), second=Arm("gdd", 800), difference_points=-0.3)
    assert said(pairs=(turned, *PAIRS[1:])).startswith("gdd is first")


def test_those_plainly_behind_the_first_share_a_sentence_those_with_a_reservation_do_not() -> None:
    rows = (*made().rows[:2], row("kd"), row("none"))
    behind = (dataclasses.replace(PAIRS[0], low_points=0.1, p=0.001), pair("gdd", "kd", 0.8, 0.2, 1.4, 0.001))
    together = "gdd is better than cwd by 0.3 (0.1 to 1.0) and kd by 0.8 (0.2 to 1.4) points."
    assert together in said(rows=rows, pairs=(*behind, *PAIRS[1:]))
    reserved = dataclasses.replace(behind[1], seeds=(0, 1, 2, 3), left_out=(4,))
    words = said(rows=rows, pairs=(behind[0], reserved, *PAIRS[1:]))
    assert together not in words and "4 seeds, without seed 4 that only one of them has" in words


def test_undistilled_at_the_head_is_said() -> None:
    rows = (row("none", 0.46), row("gdd"))
    behind = pair("gdd", "none", -1.2, -1.8, -0.6, 0.001)
    words = said(rows=rows, pairs=(behind,))
    assert "none is first at 800 iterations" in words and "gdd is worse than none by 1.2 points (95 % interval 0.6 to 1.8" in words


def test_undistilled_given_the_same_seconds_is_said() -> None:
    longer = Pair(Arm("none", 1390), Arm("gdd", 800), SEEDS, (), 101, 2.0, 1.1, 2.9, 0.002)
    rows = (*made().rows, row("none", 0.468, iterations=1390))
    words = said(rows=rows, pairs=(*PAIRS, longer))
    assert (
        "none, trained for 1390 iterations, by the clock at most 5 % longer than gdd, is better than gdd by 2.0 points (95 % interval 1.1"
        in words
    )
    ahead = dataclasses.replace(longer, difference_points=-2.0, low_points=-2.9, high_points=-1.1)
    assert "by the clock at most 5 % longer than gdd, is worse than gdd by 2.0 points" in said(rows=rows, pairs=(*PAIRS, ahead))
    assert "by the clock" not in said()


def test_equal_iterations_that_cost_more_are_said() -> None:
    rows = (row("gdd", step_seconds=0.2), row("cwd", step_seconds=0.13), row("none"))
    assert "beside none's, a step takes with gdd 1.60 times the seconds" in said(rows=rows)
    assert "equal cost" not in said()
    timed = tuple(dataclasses.replace(item, arm=dataclasses.replace(item.arm, budget="seconds")) for item in rows)
    assert "equal cost" not in said(rows=timed, pairs=())


def test_methods_that_wait_for_data_are_named() -> None:
    times = StepTimes("in turns", (StepTime("none", 0.1, 0.1, 0.1, 0.31), StepTime("gdd", 0.2, 0.2, 0.2, 0.02)))
    words = said(step_times=times)
    assert "While steps were timed, none for 31 % of the time waited for data" in words and "gdd for" not in words
    assert "waited for data" not in said(), "times from before it was measured say nothing"
    assert "budget" not in str(dict(measured(made(step_times=times))))
    comparison = made(step_times=dataclasses.replace(times, budget_seconds=90.0))
    assert dict(measured(comparison))["milliseconds per step"].endswith("; by them 90 s became each method's iterations")
    assert Comparison.from_json(json.loads(json.dumps(comparison.to_json()))) == comparison


def test_a_teacher_no_better_than_the_best_student_is_said() -> None:
    assert "The teacher, resnet34, has 52.00 % mIoU; its own training took 3600 s" in said() and "no better" not in said()
    assert "The teacher is no better than the best student (gdd, 44.80 %)" in said(teacher=Teacher("weak", 0.44, None))
    assert "The teacher, unknown, was not scored on these images." in said(teacher=Teacher("unknown", None, None))
    other = said(teacher=Teacher("large", 0.44, 60.0, protocol="stretch to 64x96"))
    assert "The teacher, large, has 44.00 % mIoU (stretch to 64x96); its own training took 60 s" in other and "is no better" in other
    assert "teacher" not in said(teacher=None)


def test_a_teacher_of_a_label_no_better_than_its_own_students_is_said() -> None:
    own = Teacher("small", 0.446, 60.0, methods=("cwd",))  # above cwd, below gdd, whom it did not teach
    words = said(own_teachers=(own,))
    assert "The teacher of cwd, small, has 44.60 % mIoU; its own training took 60 s" in words and "no better" not in words
    weak = dataclasses.replace(own, miou=0.445)
    assert "The teacher of cwd is no better than its best student (cwd, 44.50 %)" in said(own_teachers=(weak,))
    assert "no better" not in said(own_teachers=(dataclasses.replace(weak, condition="with the label plane"),))
    comparison = made(own_teachers=(own, weak))
    value = json.loads(json.dumps(comparison.to_json()))
    assert Comparison.from_json(value) == comparison
    del value["own_teachers"], value["teacher"]["methods"]  # as it was written before there were any
    assert Comparison.from_json(value) == made()


def test_a_score_with_the_label_at_hand_says_so_and_is_held_against_nobody() -> None:
    told = Teacher("label_assisted resnet34", 0.44, None, "with the label plane")
    words = said(teacher=told)
    assert "The teacher, label_assisted resnet34, has 44.00 % mIoU with the label plane, which no student is shown." in words
    assert "no better" not in words and "no better" in said(teacher=dataclasses.replace(told, condition=""))
    assert "whole image" not in said(teacher=dataclasses.replace(told, protocol="whole image")), "its own words say what it was shown"
    assert method_table(made(teacher=told)).rows[-1][:2] == ("teacher label_assisted resnet34 with the label plane", "44.00")
    value = json.loads(json.dumps(made(teacher=told).to_json()))
    assert Comparison.from_json(value).teacher == told
    del value["teacher"]["condition"]  # as it was written before there was one
    assert Comparison.from_json(value).teacher == dataclasses.replace(told, condition="")
    unscored = dataclasses.replace(told, miou=None)
    assert "resnet34, was not scored on these images." in said(teacher=unscored)


def test_failed_cells_and_missing_references_are_said() -> None:
    assert "cwd failed with seed 7: NaN in loss." in said()
    assert "cwd has no score" not in said()
    gone = (row("gdd"), row("cwd", scores=(), failed=((0, "x"), (1, "y"))), row("none"))
    words = said(rows=gone, pairs=PAIRS[1:2])
    assert "cwd failed with seed 1: y. cwd has no score: none of its trainings came through." in words
    assert "gdd is first" in words  # over those that have a score
    assert "No undistilled student stands beside these" in said(rows=made().rows[:2], pairs=PAIRS[:1]) and "undistilled" not in said()
    assert "cwd and none have no seed in common and are not compared" in said(pairs=PAIRS[:2]) and "in common" not in said()


def test_a_comparison_for_choosing_is_no_result() -> None:
    assert "that is for choosing, not for reporting" in said(split="held-out training images") and "choosing" not in said()


def test_one_method_alone_says_nothing() -> None:
    assert verdicts(made(rows=(row("gdd"),), pairs=(), teacher=None)) == ()


@pytest.mark.parametrize(
    ("value", "words"), [(1.84, "1.8"), (0.04, "0.04"), (-0.04, "-0.04"), (0.0, "0.0"), (-0.0001, "0.00"), (-2.0, "-2.0")]
)
def test_figures_keep_the_side_of_zero(value: float, words: str) -> None:
    assert figure(value) == words


def test_tables_have_a_cell_for_every_column() -> None:
    comparison = made(rows=(*made().rows, row("kd", scores=(), failed=((0, "x"),), seconds=None, step_seconds=None)))
    for table in (method_table(comparison), pair_table(comparison)):
        assert all(len(line) == len(table.columns) for line in table.rows)
    table = method_table(comparison)
    assert table.rows[0][:8] == ("gdd", "44.80", "0.16", "+1.80", "+0.90 to +2.70", "0.002", "0.004", "5")
    assert [line[0] for line in table.rows] == ["gdd", "cwd", "none", "kd", "teacher resnet34"]
    assert table.rows[3][1] == "-" and table.rows[1][8] == "1" and table.rows[4][1] == "52.00"
    assert pair_table(comparison).rows[0] == ("gdd - cwd", "+0.30", "-0.40 to +1.00", "0.400", "0.400", "5", "not told apart")
    assert table.columns[11] == "training s" and table.rows[0][11] == "100" and table.rows[3][11] == "-"
    assert table.rows[4][11] == "3600" and set(table.rows[4][2:11]) == {"-"}, "what the teacher's own training took"
    own = made(own_teachers=(Teacher("small", 0.5, 61.2, methods=("cwd", "kd")),))
    assert method_table(own).rows[-1][:2] == ("teacher of cwd, kd small", "50.00") and method_table(own).rows[-1][11] == "61"
    told = made(rows=(row("gdd", settings="gdd, weight 2"), *made().rows[1:]))
    assert [line[0] for line in method_table(told).rows][:2] == ["gdd: gdd, weight 2", "cwd"]
    assert Comparison.from_json(json.loads(json.dumps(told.to_json()))) == told
    value = json.loads(json.dumps(told.to_json()))
    del value["rows"][0]["settings"]  # as it was written before there were any
    assert Comparison.from_json(value) == made(rows=(row("gdd"), *made().rows[1:]))
    longer = made(rows=(*made().rows, row("none", iterations=1600)))
    assert [line[0] for line in method_table(longer).rows][2:4] == ["none (800 iterations)", "none (1600 iterations)"]
