"""A teacher that is no better than its student: said before the training where it is known by then, and after it."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.weak_teacher import BASELINE, START, STUDENT, weak_teacher
from gddctl.distill.job import TrainJob


def before(job: TrainJob) -> tuple[str, ...]:
    """Against the student that ``job`` starts from, and the same network trained on labels alone, where its bundle stands beside."""
    baseline = job.out / "baseline"
    fitting = is_bundle(baseline) and read_card(baseline).network == job.network
    return _against(job, {START: job.init, BASELINE: baseline if fitting else None})


def after(job: TrainJob) -> tuple[str, ...]:
    """Against the finished student."""
    return _against(job, {STUDENT: job.bundle})


def _against(job: TrainJob, others: dict[str, Path | None]) -> tuple[str, ...]:
    if not job.distils or job.teacher is None:
        return ()
    return weak_teacher(_score(job.teacher), {who: None if bundle is None else _score(bundle) for who, bundle in others.items()})


def _score(bundle: Path) -> EvalReport | None:
    evaluation = read_card(bundle).evaluation
    return None if evaluation is None else EvalReport.from_json(evaluation)
