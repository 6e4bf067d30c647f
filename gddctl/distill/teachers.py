"""From a job's teacher bundle to a frozen teacher of the kind that its card names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import nn
from typing_extensions import assert_never

from gddctl.core.artifact.card import Card
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.teaching import class_order, left_out
from gddctl.core.classes import ClassTable
from gddctl.core.config.label_assisted import NoisingConfig
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.distill.job import TrainJob
from gddctl.models.checkpoint import load_bundle, load_network, load_smoothed_labels
from gddctl.models.external import External
from gddctl.models.label_assisted import LabelAssistedTeacher, LabelNoising
from gddctl.models.protocol import Batch, Outputs
from gddctl.models.renormalise import Renormalise, is_same
from gddctl.models.segmenter import Segmenter
from gddctl.models.smoothed_labels import SmoothedLabelsTeacher
from gddctl.models.teacher import FrozenTeacher


class Teaching(Protocol):
    """A teacher that is ready: it answers for batches, and names the features that methods may compare."""

    @property
    def feature_channels(self) -> dict[str, int]:
        """Channels by feature; empty where there are logits alone."""
        ...

    def __call__(self, batch: Batch) -> Outputs:
        """Without gradient, in eval mode."""
        ...


@dataclass(frozen=True)
class Opened:
    """A teacher on its device, and what the student's card says of it."""

    teacher: Teaching
    card: Card
    noising: NoisingConfig | None  # how its labels are noised; None: it reads none, or them as they are
    order: tuple[int, ...] | None = None  # channel of its own logits by class of the dataset; None: as they are

    @property
    def dropped(self) -> tuple[str, ...]:
        """Its classes that the dataset lacks: nothing of them is in its answers."""
        return left_out(self.card, self.order)

    @property
    def matched(self) -> str:
        """What was done to its classes, in words; empty where nothing was."""
        if self.order is None:
            return ""
        dropped = f"; left out: {', '.join(self.dropped)}" if self.dropped else ""
        return f"the teacher's {len(self.card.classes)} classes are taken by name, in the dataset's order{dropped}"


def open_teacher(job: TrainJob, classes: ClassTable, device: torch.device) -> Opened | None:
    """The teacher of ``job``; None where nobody teaches.

    Raises:
        UsageError: no such bundle.
        ArtifactError: it is damaged, or of other classes.
        ConfigError: the job noises labels, and the bundle is of a kind that does not read them.
    """
    if not job.distils or job.teacher is None:
        return None
    card = read_card(job.teacher)
    order = class_order(card, classes, who=f"teacher {job.teacher}", drop=job.drop_classes)
    if job.noising is not None and card.kind != "label_assisted":
        raise ConfigError(
            f"teacher.kind is 'label_assisted', but {job.teacher} is of kind '{card.kind}'",
            remedy="name a label-assisted teacher's bundle, or leave teacher.kind and teacher.noising out",
        )
    match card.kind:
        case "network":
            network, _ = load_network(job.teacher)
            return Opened(FrozenTeacher(_laid_out(network, job), _renormalise(job, card), order).to(device), card, None, order)
        case "label_assisted":
            model, _ = load_bundle(job.teacher)
            noising = teaching_noise(card, job)
            labels = LabelNoising(len(classes), noising.codes, noising.sigma, noising.scale_for(job.data.preprocess.std))
            return Opened(LabelAssistedTeacher(_laid_out(model, job), labels, _renormalise(job, card)).to(device), card, noising)
        case "smoothed_labels":
            labels_alone, _ = load_smoothed_labels(job.teacher)
            return Opened(SmoothedLabelsTeacher(labels_alone), card, None)
        case other:
            assert_never(other)


def _renormalise(job: TrainJob, card: Card) -> Renormalise | None:
    """A teacher with another normalisation is shown the student's images as it knows them."""
    given = job.data.preprocess
    return None if is_same(given, card.preprocess) else Renormalise(given, card.preprocess)


def network_of(teacher: Teaching) -> nn.Module | None:
    """The frozen network behind ``teacher``; None for one that has none."""
    return teacher.model if isinstance(teacher, (FrozenTeacher, LabelAssistedTeacher)) else None


def teaching_noise(card: Card, job: TrainJob) -> NoisingConfig:
    """The job's wish, else what the teacher was trained with; a scale that nobody wished for is the one it was trained with."""
    trained = card.noising
    if trained is None:
        raise ArtifactError(
            f"{job.teacher}: a label-assisted teacher whose card lacks 'noising'", remedy="restore the card or train it again"
        )
    if job.noising is None:
        return trained
    return job.noising if job.noising.scale is not None else job.noising.model_copy(update={"scale": trained.scale})


N = TypeVar("N", Segmenter, Segmenter | External)


def _laid_out(model: N, job: TrainJob) -> N:
    if job.train.channels_last:
        model.to(memory_format=torch.channels_last)  # in place
    return model
