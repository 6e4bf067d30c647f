"""Pixel-wise knowledge distillation: the class distribution of every pixel (arXiv:1503.02531, as in the CIRKD code base)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gddctl.core.config.methods import Kd
from gddctl.distill.losses import labelled_pixels, pixel_kl
from gddctl.distill.methods.places import LOGITS, channels_at, like
from gddctl.models.protocol import Outputs


class KdDistiller(nn.Module):
    """One term, ``kd``. It has nothing to train."""

    def __init__(self, config: Kd) -> None:
        super().__init__()
        self.weight, self.temperature, self.labelled_only = config.weight, config.temperature, config.labelled_only

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted term."""
        kept = labelled_pixels(labels, teacher.logits) if self.labelled_only else None
        return {"kd": self.weight * pixel_kl(like(student.logits, teacher.logits), teacher.logits, self.temperature, kept)}

    def diagnostics(self) -> dict[str, float]:
        """Nothing."""
        return {}


def build_kd(config: Kd, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> KdDistiller:
    """KD as its settings say."""
    channels_at("kd", LOGITS, student_channels, teacher_channels)
    return KdDistiller(config)
