"""GDD's loss between any feature maps, at one level or at several; it knows nothing of what they are features of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.core.config.gdd import GeneratorForm, Noise, Normalise
from gddctl.distill.generators import build_generator, generator_width, noise_gain
from gddctl.distill.methods.places import like, project
from gddctl.distill.spatial_kl import spatial_kl
from gddctl.distill.target import Target


class GddLoss(nn.Module):
    """One level: align the student's feature, add noise, generate the teacher's, compare channel by channel.

    Where paper and released code differ, the defaults are the code: one noise field per image shared by all channels.

    Args:
        student_channels: of the student's feature.
        teacher_channels: of the teacher's feature.
        weight: of the loss.
        temperature: of the spatial softmax.
        noise: ``shared`` (B, 1, H, W), ``channel`` (B, C, H, W) or ``none``.
        noise_std: standard deviation; of the feature's own spread when ``relative``.
        relative: scale the noise by the standard deviation of each image's aligned feature, detached.
        normalise: see :class:`Target`.
        target_channels: see :class:`Target`.
        form: of the generator; see :func:`build_generator`.
        reduction: of its channels, unless it is ``full``; a 1x1 convolution aligns the student's to them where they differ.
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
        normalise: Normalise = "none",
        target_channels: int | None = None,
        form: GeneratorForm = "full",
        reduction: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.target = Target(teacher_channels, normalise=normalise, channels=target_channels)
        width = generator_width(form, self.target.channels, reduction)
        self.align = project(student_channels, width, bias=True)
        self.generator = build_generator(form, width, self.target.channels)
        self.weight, self.temperature = weight, temperature
        self.noise, self.noise_std, self.relative = noise, noise_std, relative
        self.random = generator
        self._aligned_std: Tensor | None = None

    def forward(self, student: Tensor, teacher: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The weighted loss.

        Shape: student (B, Cs, h, w), teacher (B, Ct, H, W), labelled (B, H, W) bool or None -> (). A student of another size is resized,
        bilinear; places that are not labelled are left out.
        """
        target, factor = self.target(teacher)
        aligned = self.align(like(student, target))
        self._aligned_std = aligned.detach().float().std()
        generated = self.generator(self.with_noise(aligned))
        return self.weight * spatial_kl(generated, target, self.temperature, factor, labelled)

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
        return aligned + field.to(aligned.dtype)  # a float32 sum would be kept for the backward pass

    def diagnostics(self) -> dict[str, float]:
        """What the noise does, as of the last call.

        ``noise_gain``: how much of a shared noise the generator lets through (near 1 at the start; 0: it has learnt to cancel it).
        ``aligned_std``: of the aligned feature, to read beside ``noise_std``.
        """
        found = {"noise_gain": float(noise_gain(self.generator))}
        if self._aligned_std is not None:
            found["aligned_std"] = float(self._aligned_std)
        return found


class PyramidLoss(nn.Module):
    """Several levels, each with its own generator: the outputs of a feature pyramid, or several stages of an encoder.

    >>> fpn = PyramidLoss(GddLoss(8, 8, weight=4.0) for _ in range(4))  # 256 channels in the released detection config
    """

    def __init__(self, levels: Iterable[GddLoss]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], labelled: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, ...]:
        """The weighted loss of each level; their sum is what trains.

        Shape: per level as :meth:`GddLoss.forward`.

        Raises:
            ValueError: there are not as many maps as levels.
        """
        if not len(students) == len(teachers) == len(self.levels):
            raise ValueError(f"{len(students)} student maps, {len(teachers)} teacher maps; expected {len(self.levels)} of each")
        kept = labelled if labelled is not None else [None] * len(self.levels)
        return tuple(level(*maps) for level, *maps in zip(self.levels, students, teachers, kept, strict=True))
