"""Generative Denoise Distillation (arXiv:2401.08332) of a segmentation network: which maps are compared, and how strongly when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gddctl.core.config.gdd import Gdd
from gddctl.distill.losses import labelled_pixels
from gddctl.distill.methods.denoise import GddLoss, PyramidLoss
from gddctl.distill.methods.places import LOGITS, channels_at, like, take
from gddctl.distill.pacing import strength_at
from gddctl.distill.spatial_kl import spatial_kl
from gddctl.models.protocol import Outputs


class GddDistiller(nn.Module):
    """GDD at one or several places of student and teacher.

    The term of one place is ``gdd``, those of several ``gdd.stage3``, ``gdd.stage4``; ``gdd.cwd`` is the one on plain logits.

    Args:
        config: its settings.
        levels: a loss for each of ``config.places``.
    """

    strength: Tensor | None  # share of the weight that counts now; None: all of it, always

    def __init__(self, config: Gdd, levels: Sequence[GddLoss]) -> None:
        super().__init__()
        self.loss = levels[0] if len(levels) == 1 else PyramidLoss(levels)
        self.config = config
        paced = config.warmup > 0 or config.decay != "none"
        self.register_buffer("strength", torch.ones(()) if paced else None, persistent=False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted terms."""
        config, places = self.config, self.config.places
        own, wanted = ([take(outputs, place) for place in places] for outputs in (student, teacher))
        kept = [self._kept(labels, feature) for feature in wanted]
        if isinstance(self.loss, PyramidLoss):
            terms = dict(zip((f"gdd.{place}" for place in places), self.loss(own, wanted, kept), strict=True))
        else:
            terms = {"gdd": self.loss(own[0], wanted[0], kept[0])}
        if self.strength is not None:
            terms = {name: self.strength * term for name, term in terms.items()}
        if config.logits_weight > 0:
            logits = like(student.logits, teacher.logits)
            kl = spatial_kl(logits, teacher.logits, config.temperature, labelled=self._kept(labels, teacher.logits))
            terms["gdd.cwd"] = config.logits_weight * kl
        return terms

    def hear(self, progress: float) -> None:
        """Set the strength for the next step."""
        if self.strength is not None:
            self.strength.fill_(strength_at(progress, warmup=self.config.warmup, decay=self.config.decay))

    def diagnostics(self) -> dict[str, float]:
        """See :meth:`GddLoss.diagnostics`; of several places each under its name."""
        if isinstance(self.loss, GddLoss):
            return {f"gdd/{name}": value for name, value in self.loss.diagnostics().items()}
        levels = cast(Sequence[GddLoss], self.loss.levels)
        named = zip(self.config.places, levels, strict=True)
        return {f"gdd/{place}/{name}": value for place, level in named for name, value in level.diagnostics().items()}

    def _kept(self, labels: Tensor, feature: Tensor) -> Tensor | None:
        return labelled_pixels(labels, feature) if self.config.labelled_only else None


def build_gdd(
    config: Gdd, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int], generator: torch.Generator | None
) -> GddDistiller:
    """GDD as its settings say."""
    if config.logits_weight > 0:
        channels_at("gdd", LOGITS, student_channels, teacher_channels)
    levels = [
        GddLoss(
            *channels_at("gdd", place, student_channels, teacher_channels),
            weight=config.weight,
            temperature=config.temperature,
            noise=config.noise,
            noise_std=config.noise_std,
            relative=config.noise_relative,
            normalise=config.normalise,
            target_channels=config.target_channels,
            form=config.generator,
            reduction=config.reduction,
            generator=generator,
        )
        for place in config.places
    ]
    return GddDistiller(config, levels)
