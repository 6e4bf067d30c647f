"""Cross-Image Relational Distillation (arXiv:2204.06986): how pixels relate to other images, in the batch and in a memory.

No adversarial term: the released code base has one for other methods.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.classes import IGNORE
from gddctl.core.config.methods import Cirkd
from gddctl.distill.class_queues import ClassQueues, gathered, random_pixels, region_means
from gddctl.distill.losses import labelled_pixels, pixel_kl, resized_labels
from gddctl.distill.methods.places import LOGITS, channels_at, like
from gddctl.distill.methods.similarities import between_images, with_memory
from gddctl.models.protocol import Outputs


class CirkdDistiller(nn.Module):
    """Terms ``cirkd.kd``, ``cirkd.images``, ``cirkd.pixels``, ``cirkd.regions``; each is left out when its weight is 0.

    Every forward pass of a training module writes the batch into the queues, before it compares with them.

    Args:
        config: its settings.
        student_channels: of the student's feature.
        teacher_channels: of the teacher's.
        classes: of the labels; others (ignored pixels) enter no queue.
        generator: chooses the pixels, on the feature's device; None: the device's default one.
    """

    def __init__(
        self, config: Cirkd, student_channels: int, teacher_channels: int, classes: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.config, self.classes, self.random = config, classes, generator
        remembers = config.pixel_weight > 0 or config.region_weight > 0
        self.project = _projector(student_channels, teacher_channels) if remembers else None
        self.pixels = ClassQueues(classes, config.pixel_queue, teacher_channels) if config.pixel_weight > 0 else None
        self.regions = ClassQueues(classes, config.region_queue, teacher_channels) if config.region_weight > 0 else None

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted terms."""
        config = self.config
        terms: dict[str, Tensor] = {}
        if config.kd_weight > 0:
            logits = like(student.logits, teacher.logits)
            terms["cirkd.kd"] = config.kd_weight * pixel_kl(
                logits, teacher.logits, config.kd_temperature, self._kept(labels, teacher.logits)
            )
        target = teacher.features[config.feature].detach()
        feature = like(student.features[config.feature], target)
        if config.image_weight > 0:
            kept = self._kept(labels, _pooled(target) if config.pool else target)
            term = cross_image_kl(feature, target, config.temperature, pool=config.pool, labelled=kept)
            terms["cirkd.images"] = config.image_weight * term
        if self.project is not None:
            projected = _unit(self.project(feature))
            for name, term in self._remembered(projected, _unit(target), labels).items():
                terms[f"cirkd.{name}"] = term
        return terms

    def _kept(self, labels: Tensor, target: Tensor) -> Tensor | None:
        return labelled_pixels(labels, target) if self.config.labelled_only else None

    def _remembered(self, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Terms against the queues. Shape: both (B, Ct, h, w), unit vectors, labels (B, H, W)."""
        config, there = self.config, resized_labels(labels, teacher)
        labelled = there != IGNORE
        found = {}
        if self.pixels is not None:
            if self.training:
                self.pixels.push(*gathered(*self._chosen(teacher, there)))
            keys = self.pixels.sample(config.pixel_samples // self.classes + 1, self.random)
            found["pixels"] = config.pixel_weight * memory_kl(student, teacher, keys, config.temperature, labelled)
        if self.regions is not None:
            if self.training:
                self.regions.push(*gathered(*region_means(teacher, there, self.classes)))
            keys = self.regions.sample(config.region_samples // self.classes + 1, self.random)
            found["regions"] = config.region_weight * memory_kl(student, teacher, keys, config.temperature, labelled)
        return found

    def _chosen(self, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        released = self.config.pixels_from == "first places"
        return random_pixels(teacher, labels, self.classes, self.config.pixels_per_image, self.random, first_places=released)

    def diagnostics(self) -> dict[str, float]:
        """Nothing."""
        return {}


def cross_image_kl(student: Tensor, teacher: Tensor, temperature: float, *, pool: bool = False, labelled: Tensor | None = None) -> Tensor:
    """For every pair of images, the distribution of a pixel's similarities to all pixels of the other; KL averaged over pixels and pairs.

    One pair at a time: a few (h*w, h*w) matrices are all that is ever held.

    Shape: features (B, Cs, h, w), (B, Ct, h, w), labelled (B, h, w) bool or None -> (). With ``pool``, of their 2x2 averages, and labelled
    is of that size. With ``labelled``, the average is over those pixels, each compared with all of the other image; 0 where there are none.
    """
    if pool:
        student, teacher = _pooled(student), _pooled(teacher)
    students, teachers = _rows(_unit(student)), _rows(_unit(teacher.detach()))
    kept = torch.ones_like(students[..., 0], dtype=torch.bool) if labelled is None else labelled.flatten(1)
    return between_images(students, teachers, _shares(kept, students) / len(students), temperature)


def memory_kl(student: Tensor, teacher: Tensor, keys: Tensor, temperature: float, labelled: Tensor) -> Tensor:
    """KL between the distributions of a pixel's similarities to ``keys``, averaged over labelled pixels; one image at a time.

    Shape: both (B, Ct, h, w), unit vectors, keys (J, Ct), labelled (B, h, w) bool -> (); 0 where nothing is labelled.
    """
    own, wanted = _rows(student), _rows(teacher.detach())
    return with_memory(own, wanted, keys.to(own.dtype), _shares(labelled.flatten(1), own), temperature)


def _shares(kept: Tensor, like: Tensor) -> Tensor:
    """Weights that make a sum the mean over the ``kept`` places; all 0 where there are none. Shape: (B, M) bool -> (B, M)."""
    return kept.to(like.dtype) / kept.sum().clamp(min=1)


def _pooled(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, 2, ceil_mode=True)


def _unit(x: Tensor) -> Tensor:
    """Unit vectors over the channels, float32. Shape: (B, C, h, w) -> the same."""
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=1)


def _rows(x: Tensor) -> Tensor:
    """Shape: (B, C, h, w) -> (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def _projector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
        nn.BatchNorm2d(teacher_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
    )


def build_cirkd(
    config: Cirkd, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int], generator: torch.Generator | None
) -> CirkdDistiller:
    """CIRKD as its settings say."""
    classes, _ = channels_at("cirkd", LOGITS, student_channels, teacher_channels)
    own, wanted = channels_at("cirkd", config.feature, student_channels, teacher_channels)
    return CirkdDistiller(config, own, wanted, classes, generator)
