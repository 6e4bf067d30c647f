"""Distillation from a Stronger Teacher (arXiv:2205.10536): correlations between classes and between pixels, not values."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gddctl.core.config.methods import Dist
from gddctl.distill.losses import class_correlation, labelled_pixels
from gddctl.distill.methods.places import LOGITS, channels_at, like
from gddctl.models.protocol import Outputs


class DistDistiller(nn.Module):
    """Terms ``dist.inter`` (between the classes of a pixel) and ``dist.intra`` (between the pixels of a class). Nothing to train."""

    def __init__(self, config: Dist) -> None:
        super().__init__()
        self.inter_weight, self.intra_weight = config.inter_weight, config.intra_weight
        self.temperature, self.labelled_only = config.temperature, config.labelled_only

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted terms."""
        kept = labelled_pixels(labels, teacher.logits) if self.labelled_only else None
        inter, intra = class_correlation(like(student.logits, teacher.logits), teacher.logits, self.temperature, kept)
        return {"dist.inter": self.inter_weight * inter, "dist.intra": self.intra_weight * intra}

    def diagnostics(self) -> dict[str, float]:
        """Nothing."""
        return {}


def build_dist(config: Dist, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> DistDistiller:
    """DIST as its settings say."""
    channels_at("dist", LOGITS, student_channels, teacher_channels)
    return DistDistiller(config)
