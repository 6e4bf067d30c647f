"""The end of a training: its best or last weights as a bundle, judged through the runtime that everybody will use."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

import gddctl
from gddctl.core.artifact.card import Card, TrainingRecord
from gddctl.core.config.load import to_settings
from gddctl.core.config.methods import NoMethod
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset
from gddctl.distill.assemble import Parts
from gddctl.distill.job import TrainJob
from gddctl.distill.places import Device
from gddctl.distill.prepare import Preparation
from gddctl.distill.quantize import record_of
from gddctl.distill.resume import Checkpoints, Position
from gddctl.models.checkpoint import load_bundle, save_bundle
from gddctl.models.segmenter import build_segmenter, differences_from_paper
from gddctl.prove.evaluate import evaluate
from gddctl.runtime.open import open_runtime

STAGING = "bundle"  # a bundle without its evaluation, among the checkpoints


def write_bundle(job: TrainJob, parts: Parts, position: Position, checkpoints: Checkpoints, preparation: Preparation, world: int) -> Path:
    """Save the weights that ``job.keep`` names, score the very files that were saved, and put both together as ``OUT/ROLE``.

    Raises:
        RunFailed: the disk is full or not writable; the checkpoints still stand.
    """
    model = build_segmenter(job.network.model_copy(update={"encoder_weights": "none"}), len(parts.classes), aux=False)
    kept = checkpoints.read_best(position.best_step) if job.keep == "best" else parts.shipped.plain_state_dict()
    model.load_state_dict(kept, strict=True)
    staging = job.checkpoints / STAGING
    card = card_of(job, parts, position, world)
    if parts.quantised is not None:
        pairs = Subset(open_dataset(job.data, job.data.train_split), preparation.train)
        quantised = parts.quantised.of(model.to(next(parts.student.parameters()).device))
        card = card.model_copy(update={"quantization": record_of(job, quantised, pairs, position)})
    save_bundle(staging, model, card)
    saved, card = load_bundle(staging)
    device: Device = "cuda" if next(parts.student.parameters()).is_cuda else "cpu"
    dataset = Subset(open_dataset(job.data, job.data.val_split), preparation.val)
    with open_runtime(staging, device=device, threads=torch.get_num_threads()) as runtime:
        report = evaluate(runtime, dataset, split=job.data.val_split, batch=max(1, job.train.batch_size // world))
    save_bundle(job.bundle, saved, card.model_copy(update={"evaluation": report.to_json()}))
    shutil.rmtree(staging, ignore_errors=True)
    return job.bundle


def card_of(job: TrainJob, parts: Parts, position: Position, world: int) -> Card:
    """The card, but for the evaluation and what only the saved weights tell."""
    method = None if job.method is None or isinstance(job.method, NoMethod) else to_settings(job.method)
    return Card(
        name=job.name or job.role,
        role=job.role,
        network=job.network,
        differs_from_paper=differences_from_paper(job.network),
        parameters=0,
        classes=parts.classes,
        preprocess=job.data.preprocess,
        data=job.data,
        weights_sha256="",
        config_digest=job.config_digest,
        training=TrainingRecord(
            iterations=position.step,
            best_iteration=position.best_step if job.keep == "best" else position.step,
            seconds=position.seconds,
            images_seen=position.step * job.train.batch_size,
            seed=job.seed,
            devices=world,
            precision=job.train.precision,
            method=method,
            teacher_weights_sha256=parts.teacher_sha256,
            init_weights_sha256=parts.init_sha256,
            method_parameters=None if parts.distiller is None else _trained(parts.distiller),
        ),
        gddctl_version=gddctl.__version__,
    )


def _trained(module: nn.Module) -> int:
    """Parameters of ``module`` that learn."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
