"""Do a training job: skip it, go on with it, in this process or in several."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.errors import UsageError
from gddctl.distill.distributed import spawn
from gddctl.distill.job import TrainJob
from gddctl.distill.label_teacher import write_smoothed_labels
from gddctl.distill.places import under_torchrun
from gddctl.distill.progress import Reporter
from gddctl.distill.sitting import sit
from gddctl.distill.tracking import require_trackers


def run_job(job: TrainJob, reporter: Reporter) -> Path:
    """Train ``job``, or go on with it; where its bundle already stands, nothing is done.

    With ``train.devices`` above 1 the work is done by processes of their own, unless torchrun already started this one.

    Returns:
        The bundle's folder, ``OUT/ROLE``.

    Raises:
        UsageError: the folder holds another training.
        EnvironmentMissing: a tracker's package is not installed.
        DataError: the data is not fit to train on.
        RunFailed: NaN, or the disk is full; what checkpoints there are stand.
        Interrupted: stopped by the user; a checkpoint was written first.
    """
    if is_bundle(job.bundle):
        _require_same_bundle(job)
        reporter.note(f"{job.role}: {job.bundle} is finished")
        return job.bundle
    if job.smoothing is not None:
        return write_smoothed_labels(job, job.smoothing, reporter)
    require_trackers(job.train.track)
    if job.train.devices > 1 and not under_torchrun():
        return spawn(job, reporter)
    return sit(job, reporter)


def _require_same_bundle(job: TrainJob) -> None:
    card = read_card(job.bundle)
    if card.config_digest != job.config_digest:
        raise UsageError(
            f"{job.bundle}: the finished {job.role} of another configuration",
            remedy="choose another --out, or --force to move the old folder aside",
        )
