"""A training under a teacher that is no better says so: before it where that is known, and after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gddctl.core.artifact.card import CARD_NAME
from gddctl.core.config.methods import Cwd
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.distill.weak_teacher import before

MakeJob = Callable[..., TrainJob]


class Notes(SilentReporter):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def with_score(bundle: Path, copy: Path, miou: float) -> Path:
    """``bundle`` with another mIoU in its card."""
    shutil.copytree(bundle, copy)
    card = json.loads((copy / CARD_NAME).read_text())
    card["evaluation"]["miou"] = miou
    (copy / CARD_NAME).write_text(json.dumps(card))
    return copy


@pytest.mark.parametrize(("score", "warns"), [(0.0, True), (1.0, False)])
def test_it_is_said_before_and_after(make_job: MakeJob, teacher_bundle: Path, tmp_path: Path, score: float, warns: bool) -> None:
    teacher = with_score(teacher_bundle, tmp_path / "teacher", score)
    out = tmp_path / "run"
    with_score(teacher_bundle, out / "baseline", 0.5)
    job = make_job(
        out, role="student", job={"method": Cwd(), "teacher": teacher, "init": teacher_bundle}, iterations=1, val_every=1, log_every=1
    )
    notes = Notes()
    run_job(job, notes)
    warnings = [note for note in notes.said if "teacher is no better" in note]
    assert len(warnings) == (3 if warns else 0)  # its start, its baseline, itself
    assert not warns or any("without distillation: 0.00 against 50.00 % mIoU on 'val'" in note for note in warnings)
    assert not warns or notes.said.index(warnings[1]) < next(index for index, note in enumerate(notes.said) if "val mIoU" in note)


def test_a_baseline_of_another_network_is_no_baseline(make_job: MakeJob, teacher_bundle: Path, tmp_path: Path) -> None:
    teacher = with_score(teacher_bundle, tmp_path / "teacher", 0.0)
    baseline = with_score(teacher_bundle, tmp_path / "run" / "baseline", 0.5)
    job = make_job(tmp_path / "run", role="student", job={"method": Cwd(), "teacher": teacher})
    assert len(before(job)) == 1
    card = json.loads((baseline / CARD_NAME).read_text())
    card["network"]["output_stride"] = 8
    (baseline / CARD_NAME).write_text(json.dumps(card))
    assert before(job) == ()
