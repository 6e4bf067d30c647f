"""Equal time: what ``--budget`` may say, what it becomes, and which folder goes on with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from gddctl.core.errors import RunFailed, UsageError
from gddctl.pipeline.compare.budget import Budget, Seconds, TimeOf, asked_budget
from gddctl.pipeline.compare.step_times import STEP_TIMES, Recorded, Timed, read_recorded, under_budget, write_recorded

METHODS = ("none", "cwd", "gdd:best")
STEPS, SLOW = 2999, 0.013  # whose product over SLOW is a little less than STEPS


def recorded(budget: Budget, slow: Timed | None = None) -> Recorded:
    methods = {"none": Timed((SLOW / 2.5,)), "cwd": Timed((), "out of memory"), "gdd:best": slow or Timed((SLOW,))}
    return Recorded(budget, "cpu", 1, 1, 1, methods)


@pytest.mark.parametrize(
    ("word", "budget"),
    [(None, None), ("60", Seconds(60.0)), ("0.5", Seconds(0.5)), ("none", TimeOf("none", 8)), ("gdd:best", TimeOf("gdd:best", 8))],
)
def test_a_budget_is_seconds_or_the_time_of_a_method(word: str | None, budget: Budget | None) -> None:
    assert asked_budget(word, METHODS, 8) == budget
    assert budget is None or asked_budget(budget.flag, METHODS, 8) == budget, "what is said to be given again means the same"


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("gdd", METHODS),
        ("1 h", METHODS),
        ("0", ["seconds from 0.001"]),
        ("-3", ["0.001"]),
        ("nan", ["0.001"]),
        ("inf", ["number of seconds"]),
    ],
)
def test_anything_else_is_refused(word: str, words: Sequence[str]) -> None:
    with pytest.raises(UsageError) as refused:
        asked_budget(word, METHODS, 8)
    said = f"{refused.value.message} {refused.value.remedy}"
    assert f"--budget {word}" in said and all(each in said for each in words)


def test_a_label_that_reads_as_a_number_is_no_budget() -> None:
    for label in ("50", "1e3", "nan"):
        with pytest.raises(UsageError, match=f"--budget {label}: may be seconds or the method of that name"):
            asked_budget(label, (*METHODS, label), 8)


def test_the_method_whose_time_it_is_keeps_its_iterations_and_the_others_get_as_long(tmp_path: Path) -> None:
    assert int(STEPS * SLOW / SLOW) != STEPS, "rounding would lose a step here"
    made = recorded(TimeOf("gdd:best", STEPS))
    assert made.iterations("gdd:best") == STEPS and made.budget_seconds == pytest.approx(STEPS * SLOW)
    assert made.iterations("none") == int(2.5 * STEPS)
    table = made.table()
    assert (table.budget_seconds, table.budget_of) == (made.budget_seconds, f"{STEPS} steps of gdd:best")
    assert recorded(Seconds(9.0)).table().budget_of is None
    write_recorded(tmp_path, made)
    assert read_recorded(tmp_path) == made
    joined = made.joined({"none": Timed((SLOW / 1.25,)), "cwd": Timed((2.5 * SLOW,))})  # an hour in which everything takes twice as long
    assert joined.iterations("cwd") == int(STEPS / 1.25), "later methods get the first measurement's time"


def test_a_file_from_before_budgets_could_be_a_methods_time_is_read(tmp_path: Path) -> None:
    made = recorded(Seconds(60.0))
    write_recorded(tmp_path, made)
    older = json.loads((tmp_path / STEP_TIMES).read_text())
    del older["budget_of"]
    (tmp_path / STEP_TIMES).write_text(json.dumps(older))
    assert read_recorded(tmp_path) == made


def test_a_folder_has_one_budget(tmp_path: Path) -> None:
    for made in (Seconds(60.0), TimeOf("gdd:best", STEPS)):
        assert under_budget(tmp_path, recorded(made), made) == recorded(made)
        for other in (Seconds(61.0), TimeOf("none", STEPS), TimeOf("gdd:best", STEPS + 1)):
            with pytest.raises(UsageError) as refused:
                under_budget(tmp_path, recorded(made), other)
            assert made.words in refused.value.message and other.words in refused.value.message
            same = other.flag == made.flag
            assert (refused.value.remedy or "").startswith(f"add --set train.iterations={STEPS}," if same else "use that budget,")
    assert under_budget(tmp_path, None, Seconds(1.0)) is None


def test_where_that_method_has_no_time_the_reason_is_said_and_the_table_stands(tmp_path: Path) -> None:
    lost = recorded(TimeOf("gdd:best", STEPS), Timed((), "its gradient is NaN"))
    with pytest.raises(RunFailed, match="--budget gdd:best: its gradient is NaN"):
        lost.iterations("none")
    assert lost.table().budget_seconds is None, "cells at equal iterations are shown all the same"
    write_recorded(tmp_path, lost)
    assert read_recorded(tmp_path) == lost
    assert lost.joined({"gdd:best": Timed((SLOW,))}).iterations("gdd:best") == STEPS, "measured later, it is known"
    other = under_budget(tmp_path, lost, Seconds(7.0))
    assert other is not None and other.budget == Seconds(7.0) and other.methods == lost.methods, "no cell was trained by what is not known"
