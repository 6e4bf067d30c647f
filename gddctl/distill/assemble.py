"""From a job to the parts that train: the one place of the loop that reads settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import nn

from gddctl.core.classes import ClassTable
from gddctl.core.config.methods import NoMethod
from gddctl.core.config.sections import TrainConfig
from gddctl.data.augment import TrainAugment
from gddctl.data.dataset import SegDataset
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset
from gddctl.distill.cache import PairCache, memory_budget
from gddctl.distill.cautions import synchronised
from gddctl.distill.class_weights import explicit, inverse_log
from gddctl.distill.compiling import compile_network, require_compiler, uncompiled
from gddctl.distill.dual_path import DualPathStep
from gddctl.distill.ema import WeightAverage
from gddctl.distill.job import TrainJob
from gddctl.distill.loader import Batches, Plan, TrainPairs
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.places import LOGITS, Asked
from gddctl.distill.places import local_processes
from gddctl.distill.prepare import Preparation
from gddctl.distill.quantize import fake_quantised
from gddctl.distill.schedule import PolySchedule
from gddctl.distill.seeds import derive
from gddctl.distill.step import TrainStep, check_groups, make_optimizer
from gddctl.distill.teacher_cache import with_cache
from gddctl.distill.teacher_precision import with_precision
from gddctl.distill.teachers import Opened, Teaching, network_of, open_teacher
from gddctl.distill.validate import Validator
from gddctl.models.checkpoint import load_into
from gddctl.models.fake_quant import FakeQuantised
from gddctl.models.label_assisted import LabelNoising, build_label_assisted
from gddctl.models.segmenter import Segmenter, build_segmenter


@dataclass
class Parts:
    """Everything that takes part in a training, built and on its device."""

    student: Segmenter
    quantised: FakeQuantised | None  # the form in which it trains; None: as it is
    distiller: nn.Module | None
    opened: Opened | None  # the teacher and its card
    wrapped: _FabricModule  # of student and distiller
    optimizer: _FabricOptimizer
    schedule: PolySchedule
    average: WeightAverage | None
    batches: Batches
    validator: Validator
    classes: ClassTable
    init_sha256: str | None

    @property
    def teacher(self) -> Teaching | None:
        """Who answers beside the student."""
        return None if self.opened is None else self.opened.teacher

    @property
    def shipped(self) -> Segmenter:
        """The network that is saved: the average where there is one."""
        if self.average is None:
            return self.student
        assert isinstance(self.average.model, Segmenter)
        return self.average.model

    @property
    def judged(self) -> Segmenter | FakeQuantised:
        """What is validated: the saved network, in the form in which it trains."""
        if self.quantised is None or self.average is None:
            return self.quantised or self.student
        return self.quantised.of(self.shipped)


def assemble(job: TrainJob, fabric: Fabric, preparation: Preparation, note: Callable[[str], None] = lambda _: None) -> Parts:
    """Build the parts of ``job`` for this process; ``note`` is told what one should know of them.

    Raises:
        GddctlError: the data, the teacher or the bundle to start from do not fit; see what they raise.
    """
    train, device = job.train, fabric.device
    training = open_dataset(job.data, job.data.train_split)
    validation = open_dataset(job.data, job.data.val_split)
    classes = training.classes
    if train.compile:
        require_compiler(device.type)
    torch.manual_seed(derive(job.seed, "init"))
    build = build_label_assisted if job.kind == "label_assisted" else build_segmenter
    student = build(job.network, len(classes), aux=train.aux_weight > 0 and job.quantize is None)
    init_sha256 = load_into(student, job.init).weights_sha256 if job.init is not None else None
    opened = _teacher(job, classes, device)
    if opened is not None and opened.matched:
        note(opened.matched)
    distiller, read = _distiller(job, student, None if opened is None else opened.teacher)
    if opened is not None and job.cache_teacher != "none":
        seen, precision = len(preparation.train), partial(_as_called, job, fabric)
        opened = replace(opened, teacher=with_cache(opened, job, read, images=seen, device=device, precision=precision, note=note))
    weights = _class_weights(train, classes, preparation)
    quantised = fake_quantised(student, job.quantize.target, job.data.preprocess.size, train.crop) if job.quantize is not None else None
    module = _step(job, quantised or student, distiller, weights)
    synchronised(module, fabric.world_size, device.type)
    if train.channels_last:
        module.to(memory_format=torch.channels_last)  # in place
    fabric.to_device(module)  # in place
    optimizer = make_optimizer(module, train, fused=train.precision != "fp16")
    check_groups(module, optimizer)
    if train.compile:
        compile_network(student)
    wrapped, wrapped_optimizer = fabric.setup(module, optimizer, move_to_device=False)
    keyed = opened is not None and job.cache_teacher != "none"
    batches, validator = _data(job, fabric, preparation, (training, validation), keyed=keyed)
    return Parts(
        student=student,
        quantised=quantised,
        distiller=module.distiller,
        opened=opened,
        wrapped=wrapped,
        optimizer=wrapped_optimizer,
        schedule=PolySchedule(train.lr, train.iterations, train.poly_power, train.min_lr, train.warmup),
        average=WeightAverage(student, train.ema) if train.ema is not None else None,
        batches=batches,
        validator=validator,
        classes=classes,
        init_sha256=init_sha256,
    )


def _data(
    job: TrainJob, fabric: Fabric, preparation: Preparation, sets: tuple[SegDataset, SegDataset], *, keyed: bool
) -> tuple[Batches, Validator]:
    """What this process trains on and is validated on, of the training and validation ``sets``."""
    train, spec, device = job.train, job.data.preprocess, fabric.device
    training, validation = sets
    budget = memory_budget(local_processes()) if job.data.cache == "ram" else 0
    usable = Subset(training, preparation.train)
    cache = PairCache(len(usable), spec.size, budget) if budget else None
    augment = TrainAugment(train.crop, train.scale, train.flip, train.color)
    pairs = TrainPairs(usable, spec, augment, job.seed, cache)
    plan = Plan(job.seed, len(usable), train.batch_size, fabric.global_rank, fabric.world_size)
    validator = Validator(
        Subset(validation, preparation.val),
        spec,
        batch=train.batch_size // fabric.world_size,
        threads=train.workers,
        device=device,
        budget=budget // 2,
        rank=fabric.global_rank,
        world=fabric.world_size,
        noising=labels_noised(job, len(training.classes), training=False),
    )
    return Batches(pairs, plan, spec, train.workers, device, keyed=keyed), validator


def _teacher(job: TrainJob, classes: ClassTable, device: torch.device) -> Opened | None:
    """The teacher, computing in its precision, compiled where asked for."""
    opened = open_teacher(job, classes, device)
    if opened is None:
        return None
    network = network_of(opened.teacher)
    teacher = with_precision(opened.teacher, network, job.teacher_precision, job.train.precision, device.type)
    if job.train.compile and network is not None:
        compile_network(network)
    return replace(opened, teacher=teacher)


@contextmanager
def _as_called(job: TrainJob, fabric: Fabric) -> Iterator[None]:
    """Where a teacher can be asked as it will be in training, without compiling it for the question."""
    with fabric.autocast(), uncompiled() if job.train.compile else nullcontext():
        yield


def _step(
    job: TrainJob, network: Segmenter | FakeQuantised, distiller: nn.Module | None, weights: torch.Tensor | None
) -> TrainStep | DualPathStep:
    noising = labels_noised(job, network.num_classes, training=True) if isinstance(network, Segmenter) else None
    if noising is None or job.noising is None:
        return TrainStep(network, distiller, job.train.aux_weight, weights)
    return DualPathStep(
        network,
        noising,
        job.train.aux_weight,
        weights,
        consistency=job.noising.consistency,
        temperature=job.noising.temperature,
        labelled_only=job.noising.labelled_only,
        joint=job.noising.joint,
    )


def labels_noised(job: TrainJob, num_classes: int, *, training: bool) -> LabelNoising | None:
    """How a label-assisted teacher sees labels while it trains (stage A), or teaches and is judged (stage B); None for another job."""
    if job.kind != "label_assisted" or job.noising is None:
        return None
    scale = job.noising.scale_for(job.data.preprocess.std)
    if training:
        return LabelNoising(num_classes, job.noising.train_codes, job.noising.train_sigma, scale)
    return LabelNoising(num_classes, job.noising.codes, job.noising.sigma, scale)


def _distiller(job: TrainJob, student: Segmenter, teacher: Teaching | None) -> tuple[nn.Module | None, frozenset[str]]:
    """The distiller, and what it reads of the teacher's answers."""
    if teacher is None or job.method is None or isinstance(job.method, NoMethod):
        return None, frozenset()
    torch.manual_seed(derive(job.seed, "distiller"))
    logits = {LOGITS: student.num_classes}  # the teacher's are matched to the same table
    wanted = Asked({**teacher.feature_channels, **logits})
    return build_distiller(job.method, {**student.feature_channels, **logits}, wanted), frozenset(wanted.places)


def _class_weights(train: TrainConfig, classes: ClassTable, preparation: Preparation) -> torch.Tensor | None:
    if train.class_weights == "none":
        return None
    if train.class_weights == "inverse_log":
        return torch.tensor(inverse_log(preparation.shares))
    return torch.tensor(explicit(train.class_weights, classes.names))
