"""Generative Denoise Distillation (arXiv:2401.08332): align, noise, generate, compare channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.core.config.methods import Gdd
from gddctl.distill.losses import channel_kl
from gddctl.distill.methods.places import channels_at
from gddctl.models.protocol import Outputs

Noise = Literal["shared", "channel", "none"]


class GddLoss(nn.Module):
    """The loss between any pair of feature maps; it knows nothing of what they are features of.

    Where paper and released code differ, this is the code: one noise field per image shared by all channels is the default.

    Args:
        student_channels: of the student's feature.
        teacher_channels: of the teacher's feature; a 1x1 convolution aligns when they differ.
        weight: of the loss.
        temperature: of the spatial softmax.
        noise: ``shared`` (B, 1, H, W), ``channel`` (B, C, H, W) or ``none``.
        noise_std: standard deviation; of the feature's own spread when ``relative``.
        relative: scale the noise by the standard deviation of each image's aligned feature, detached.
        generator: draws the noise, on the feature's device; None: the device's default one.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        weight: float = 145.0,
        temperature: float = 4.0,
        noise: Noise = "shared",
        noise_std: float = 1.0,
        relative: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.align = nn.Conv2d(student_channels, teacher_channels, 1) if student_channels != teacher_channels else nn.Identity()
        self.generator = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )
        self.weight, self.temperature = weight, temperature
        self.noise, self.noise_std, self.relative = noise, noise_std, relative
        self.random = generator
        self._aligned_std: Tensor | None = None

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Shape: student (B, Cs, h, w), teacher (B, Ct, H, W) -> (). A student of another size is resized, bilinear."""
        if student.shape[-2:] != teacher.shape[-2:]:
            student = F.interpolate(student, size=teacher.shape[-2:], mode="bilinear", align_corners=False)
        aligned = self.align(student)
        self._aligned_std = aligned.detach().float().std()
        generated = self.generator(self.with_noise(aligned))
        return self.weight * channel_kl(generated, teacher, self.temperature)

    def with_noise(self, aligned: Tensor) -> Tensor:
        """Add the noise, drawn in float32 on the feature's own device."""
        batch, channels, height, width = aligned.shape
        match self.noise:
            case "none":
                return aligned
            case "shared":
                shape = (batch, 1, height, width)
            case "channel":
                shape = (batch, channels, height, width)
            case other:
                assert_never(other)
        field = torch.randn(shape, device=aligned.device, dtype=torch.float32, generator=self.random) * self.noise_std
        if self.relative:
            field = field * aligned.detach().float().std(dim=(1, 2, 3), keepdim=True)
        return aligned + field

    def diagnostics(self) -> dict[str, float]:
        """What the noise does, as of the last call.

        ``noise_gain``: ||sum over inputs of W|| / ||W|| of the generator's first convolution, how much of the shared noise it lets through
        (near 1 at the start; 0: it has learnt to cancel it). ``aligned_std``: of the aligned feature, to read beside ``noise_std``.
        """
        first = cast(nn.Conv2d, self.generator[0]).weight.detach().float()
        found = {"noise_gain": float(first.sum(dim=1).norm() / first.norm())}
        if self._aligned_std is not None:
            found["aligned_std"] = float(self._aligned_std)
        return found


class GddDistiller(nn.Module):
    """GDD on one stage of student and teacher; the term is called ``gdd``."""

    def __init__(self, loss: GddLoss, stage: str) -> None:
        super().__init__()
        self.loss = loss
        self.stage = stage

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted term."""
        return {"gdd": self.loss(student.features[self.stage], teacher.features[self.stage])}

    def diagnostics(self) -> dict[str, float]:
        """See :meth:`GddLoss.diagnostics`."""
        return {f"gdd/{name}": value for name, value in self.loss.diagnostics().items()}


def build_gdd(
    config: Gdd, student_channels: Mapping[str, int], teacher_channels: Mapping[str, int], generator: torch.Generator | None
) -> GddDistiller:
    """GDD as its settings say."""
    own, wanted = channels_at("gdd", config.stage, student_channels, teacher_channels)
    loss = GddLoss(
        own,
        wanted,
        weight=config.weight,
        temperature=config.temperature,
        noise=config.noise,
        noise_std=config.noise_std,
        relative=config.noise_relative,
        generator=generator,
    )
    return GddDistiller(loss, config.stage)
