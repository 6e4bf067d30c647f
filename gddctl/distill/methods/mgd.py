"""Masked Generative Distillation (arXiv:2205.01529): align, hide most places, generate the teacher's whole feature."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gddctl.core.config.methods import Mgd
from gddctl.distill.generators import build_generator
from gddctl.distill.losses import channel_kl, labelled_pixels, squared_error_per_image
from gddctl.distill.methods.places import LOGITS, channels_at, like, project
from gddctl.models.protocol import Outputs


class MgdDistiller(nn.Module):
    """Terms ``mgd`` on the feature and, unless its weight is 0, ``mgd.logits``: CWD, which the released configs add.

    Args:
        config: its settings.
        student_channels: of the student's feature.
        teacher_channels: of the teacher's.
        generator: draws the mask, on the feature's device; None: the device's default one.
    """

    def __init__(self, config: Mgd, student_channels: int, teacher_channels: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.align = project(student_channels, teacher_channels, bias=True)
        self.generator = build_generator("full", teacher_channels, teacher_channels)  # GDD's is this one
        self.stage, self.weight, self.masked = config.stage, config.weight, config.masked
        self.logits_weight, self.logits_temperature = config.logits_weight, config.logits_temperature
        self.labelled_only = config.labelled_only
        self.random = generator

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted terms."""
        target = teacher.features[self.stage]
        aligned = self.align(like(student.features[self.stage], target))
        generated = self.generator(aligned * self.mask(aligned))
        terms = {"mgd": self.weight * squared_error_per_image(generated, target, self._kept(labels, target))}
        if self.logits_weight > 0:
            logits = like(student.logits, teacher.logits)
            kept = self._kept(labels, teacher.logits)
            terms["mgd.logits"] = self.logits_weight * channel_kl(logits, teacher.logits, self.logits_temperature, kept)
        return terms

    def _kept(self, labels: Tensor, target: Tensor) -> Tensor | None:
        return labelled_pixels(labels, target) if self.labelled_only else None

    def mask(self, aligned: Tensor) -> Tensor:
        """1 where a place is kept, 0 where all its channels are hidden. Shape: (B, C, H, W) -> (B, 1, H, W)."""
        batch, _, height, width = aligned.shape
        drawn = torch.rand((batch, 1, height, width), device=aligned.device, generator=self.random)
        return (drawn >= self.masked).to(aligned.dtype)

    def diagnostics(self) -> dict[str, float]:
        """Nothing."""
        return {}


def build_mgd(
    config: Mgd, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int], generator: torch.Generator | None
) -> MgdDistiller:
    """MGD as its settings say."""
    if config.logits_weight > 0:
        channels_at("mgd", LOGITS, student_channels, teacher_channels)
    return MgdDistiller(config, *channels_at("mgd", config.stage, student_channels, teacher_channels), generator)
