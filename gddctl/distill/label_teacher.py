"""The control of label-assisted teachers as a bundle: nothing to train, so it is written at once, and scored as the others are."""

from __future__ import annotations

import shutil
from pathlib import Path

import gddctl
from gddctl.core.artifact.card import Card, TrainingRecord
from gddctl.core.config.label_assisted import SmoothingConfig
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset
from gddctl.distill.job import TrainJob
from gddctl.distill.prepare import prepare
from gddctl.distill.progress import Reporter
from gddctl.models.checkpoint import save_bundle
from gddctl.models.segmenter import effective_stride
from gddctl.models.smoothed_labels import SmoothedLabels
from gddctl.prove.assisted import evaluate_assisted
from gddctl.runtime.torch_teacher import TorchTeacher


def write_smoothed_labels(job: TrainJob, smoothing: SmoothingConfig, reporter: Reporter) -> Path:
    """Write ``job``'s bundle of smoothed labels.

    Raises:
        DataError: the data is not fit to train on.
        RunFailed: the disk is full or not writable.
    """
    preparation = prepare(job.data, job.checkpoints.parent, count=False, note=reporter.note)
    validation = Subset(open_dataset(job.data, job.data.val_split), preparation.val)
    model = SmoothedLabels(len(validation.classes), effective_stride(job.network), smoothing.scale, smoothing.blur)
    card = Card(
        name=job.name or job.role,
        role=job.role,
        kind="smoothed_labels",
        smoothing=smoothing,
        network=job.network,
        parameters=0,
        classes=validation.classes,
        preprocess=job.data.preprocess,
        data=job.data,
        weights_sha256="",
        config_digest=job.config_digest,
        training=TrainingRecord(
            iterations=0, best_iteration=0, seconds=0.0, images_seen=0, seed=job.seed, devices=0, precision=job.train.precision
        ),
        gddctl_version=gddctl.__version__,
    )
    staging = job.checkpoints / "bundle"
    save_bundle(staging, model, card)
    report = evaluate_assisted(TorchTeacher(staging), validation, split=job.data.val_split)
    save_bundle(job.bundle, model, card.model_copy(update={"evaluation": report.to_json()}))
    shutil.rmtree(staging, ignore_errors=True)
    reporter.note(f"{job.role}: smoothed labels, nothing to train")
    return job.bundle
