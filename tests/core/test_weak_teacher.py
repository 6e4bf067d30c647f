"""When a teacher is called no better than its student."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gddctl.core.reports.assisted import AssistedScores
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.weak_teacher import BASELINE, STUDENT, teacher_margin, weak_teacher

TEACHER = EvalReport("teacher", "0", "val", 8, "whole image", 0.437, 0.8, 0.6, {})


def scored(miou: float) -> EvalReport:
    return replace(TEACHER, model="other", sha256="1", miou=miou)


def test_the_warning_has_both_numbers_and_who() -> None:
    (warning,) = weak_teacher(TEACHER, {BASELINE: scored(0.448), STUDENT: scored(0.42)})
    assert f"no better than {BASELINE}: 43.70 against 44.80 % mIoU on 'val'" in warning
    assert "\n" not in warning


@pytest.mark.parametrize(("other", "warns"), [(0.42, False), (0.437, True), (0.44, True)])
def test_an_equal_is_no_better(other: float, warns: bool) -> None:
    margin = teacher_margin(TEACHER, scored(other), STUDENT)
    assert margin is not None
    assert bool(margin) is not warns
    assert bool(margin.warning) is warns


@pytest.mark.parametrize(
    "change", [{"split": "test"}, {"images": 9}, {"per_class": {"sky": 0.5}}, {"assisted": AssistedScores("label_assisted", ())}]
)
def test_scores_of_other_images_or_classes_or_with_the_label_are_not_compared(change: dict[str, object]) -> None:
    assert teacher_margin(TEACHER, replace(scored(0.9), **change), STUDENT) is None  # type: ignore[arg-type]
    assert weak_teacher(TEACHER, {STUDENT: replace(scored(0.9), **change)}) == ()  # type: ignore[arg-type]


def test_a_teacher_with_another_input_size_is_held_against_its_student_and_both_protocols_stand_beside() -> None:
    (warning,) = weak_teacher(TEACHER, {STUDENT: replace(scored(0.44), protocol="stretch to 48x64")})
    assert "43.70 against 44.00 % mIoU on 'val' (scored otherwise: whole image; against stretch to 48x64); train it longer" in warning
    assert "otherwise" not in weak_teacher(TEACHER, {STUDENT: scored(0.44)})[0]


def test_nothing_is_said_without_a_score() -> None:
    assert weak_teacher(None, {STUDENT: scored(0.9)}) == weak_teacher(TEACHER, {STUDENT: None}) == ()
