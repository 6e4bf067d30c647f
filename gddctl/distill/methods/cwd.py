"""Channel-wise Knowledge Distillation (arXiv:2011.13256): where each channel looks, on logits or on a feature."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gddctl.core.config.methods import Cwd
from gddctl.distill.losses import channel_kl, labelled_pixels
from gddctl.distill.methods.places import channels_at, like, project, take
from gddctl.models.protocol import Outputs


class CwdDistiller(nn.Module):
    """One term, ``cwd``. A 1x1 convolution without bias projects a feature whose channels differ."""

    def __init__(self, config: Cwd, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.place, self.weight, self.temperature = config.place, config.strength, config.temperature
        self.labelled_only = config.labelled_only
        self.project = project(student_channels, teacher_channels, bias=False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted term."""
        target = take(teacher, self.place)
        projected = self.project(like(take(student, self.place), target))
        kept = labelled_pixels(labels, target) if self.labelled_only else None
        return {"cwd": self.weight * channel_kl(projected, target, self.temperature, kept)}

    def diagnostics(self) -> dict[str, float]:
        """Nothing."""
        return {}


def build_cwd(config: Cwd, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int]) -> CwdDistiller:
    """CWD as its settings say."""
    return CwdDistiller(config, *channels_at("cwd", config.place, student_channels, teacher_channels))
