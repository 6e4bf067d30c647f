"""The end of a training: its best or last weights as a bundle, judged through the runtime that everybody will use."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import nn

import gddctl
from gddctl.core.artifact.card import Card, TrainingRecord, as_teacher
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.label_assisted import NoisingConfig
from gddctl.core.config.load import to_settings
from gddctl.core.config.methods import NoMethod
from gddctl.core.reports.evaluation import EvalReport
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset
from gddctl.distill.assemble import Parts
from gddctl.distill.job import TrainJob
from gddctl.distill.places import Device
from gddctl.distill.prepare import Preparation
from gddctl.distill.quantize import record_of
from gddctl.distill.resume import Checkpoints, Position
from gddctl.models.checkpoint import empty_network, load_bundle, save_bundle
from gddctl.models.label_assisted import differences_from_release
from gddctl.models.segmenter import differences_from_paper
from gddctl.prove.assisted import evaluate_assisted
from gddctl.prove.evaluate import evaluate
from gddctl.runtime.open import open_runtime
from gddctl.runtime.torch_teacher import TorchTeacher

STAGING = "bundle"  # a bundle without its evaluation, among the checkpoints


def write_bundle(job: TrainJob, parts: Parts, position: Position, checkpoints: Checkpoints, preparation: Preparation, world: int) -> Path:
    """Save the weights that ``job.keep`` names, score the very files that were saved, and put both together as ``OUT/ROLE``.

    Raises:
        RunFailed: the disk is full or not writable; the checkpoints still stand.
    """
    model = empty_network(job.kind, job.network, len(parts.classes))
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
    report = _judged(job, staging, preparation, device, batch=max(1, job.train.batch_size // world))
    save_bundle(job.bundle, saved, card.model_copy(update={"evaluation": report.to_json()}))
    shutil.rmtree(staging, ignore_errors=True)
    return job.bundle


def _judged(job: TrainJob, bundle: Path, preparation: Preparation, device: Device, *, batch: int) -> EvalReport:
    dataset, split = Subset(open_dataset(job.data, job.data.val_split), preparation.val), job.data.val_split
    if job.kind != "network":
        return evaluate_assisted(TorchTeacher(bundle, device=device, threads=torch.get_num_threads()), dataset, split=split, batch=batch)
    with open_runtime(bundle, device=device, threads=torch.get_num_threads()) as runtime:
        return evaluate(runtime, dataset, split=split, batch=batch)


def label_warnings(bundle: Path) -> tuple[str, ...]:
    """Of the bundle of a label-assisted teacher: that it makes nothing of the label, where that is so."""
    evaluation = read_card(bundle).evaluation
    assisted = None if evaluation is None else EvalReport.from_json(evaluation).assisted
    return () if assisted is None or not assisted.warning else (assisted.warning,)


def card_of(job: TrainJob, parts: Parts, position: Position, world: int) -> Card:
    """The card, but for the evaluation and what only the saved weights tell."""
    method = None if job.method is None or isinstance(job.method, NoMethod) else to_settings(job.method)
    noising = recorded_noising(job) if job.kind == "label_assisted" else None
    label_differences = differences_from_release(noising, len(parts.classes)) if noising is not None else ()
    return Card(
        name=job.name or job.role,
        role=job.role,
        kind=job.kind,
        noising=noising,
        network=job.network,
        differs_from_paper=(*differences_from_paper(job.network), *label_differences),
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
            teacher_weights_sha256=None if parts.opened is None else parts.opened.card.weights_sha256,
            teacher_kind=None if parts.opened is None else parts.opened.card.kind,
            teacher_noising=None if parts.opened is None else parts.opened.noising,
            init_weights_sha256=parts.init_sha256,
            method_parameters=None if parts.distiller is None else _trained(parts.distiller),
        ),
        teacher=None if parts.opened is None else as_teacher(parts.opened.card, parts.opened.dropped),
        gddctl_version=gddctl.__version__,
    )


def recorded_noising(job: TrainJob) -> NoisingConfig | None:
    """As it was, its scale in numbers: whoever teaches with it later gives the plane the same weight."""
    return job.noising and job.noising.model_copy(update={"scale": job.noising.scale_for(job.data.preprocess.std)})


def _trained(module: nn.Module) -> int:
    """Parameters of ``module`` that learn."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
