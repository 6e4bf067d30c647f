"""What of a teacher's feature is compared: all of it, at its own scale or at unit spread, or a fixed projection of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.core.config.gdd import Normalise

FLOOR = 0.1  # of the feature's mean spread: quieter channels are not blown up to full strength


class Target(nn.Module):
    """Scales and projects a teacher's feature, without gradient and without anything that learns.

    The projection's rows are orthonormal and random: it keeps the mean spread per channel, so that a weight carries over, and it keeps what
    a feature of lower rank than ``channels`` holds. It never learns, because a target that learns together with the generator collapses.

    Args:
        teacher_channels: of the feature.
        normalise: ``channel``: divide each channel by its spread over this process's batch and all places; ``feature``: all by one;
            ``none``.
        channels: to project to, where the feature has more; None: no projection.
    """

    projection: Tensor | None  # (channels, teacher_channels)

    def __init__(self, teacher_channels: int, *, normalise: Normalise = "none", channels: int | None = None) -> None:
        super().__init__()
        projects = channels is not None and channels < teacher_channels
        self.channels = channels if projects and channels is not None else teacher_channels
        self.normalise = normalise
        self.register_buffer("projection", orthonormal_rows(self.channels, teacher_channels) if projects else None)

    @torch.no_grad()
    def forward(self, teacher: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shape: (B, Ct, H, W) -> (B, channels, H, W), and what its channels are yet to be multiplied by: (channels,) or None."""
        factor = self.factor(teacher)
        if self.projection is None:
            return teacher, factor
        weight = self.projection if factor is None else self.projection * factor.to(self.projection.dtype)
        return F.conv2d(teacher, weight.to(teacher.dtype)[:, :, None, None]), None

    def factor(self, teacher: Tensor) -> Tensor | None:
        """One over the spread that is asked for. Shape: (B, Ct, H, W) -> (Ct,) or None."""
        if self.normalise == "none":
            return None
        variance = channel_variance(teacher)
        whole = variance.mean()
        match self.normalise:
            case "channel":
                variance = variance + FLOOR**2 * whole
            case "feature":
                variance = whole.expand_as(variance)
            case other:
                assert_never(other)
        tiny = torch.finfo(variance.dtype).tiny
        return torch.where(whole > tiny, variance.clamp(min=tiny).rsqrt(), 1.0)  # a feature without any spread stays as it is


def channel_variance(x: Tensor) -> Tensor:
    """Variance of each channel over batch and places, in float32 at least. Shape: (B, C, H, W) -> (C,)."""
    wide = x if x.dtype == torch.float64 else x.float()
    variance: Tensor = wide.var(dim=(0, 2, 3), correction=0)
    return variance


def orthonormal_rows(rows: int, columns: int) -> Tensor:
    """A random matrix with orthonormal rows, drawn with the default generator. Shape: (rows, columns), rows <= columns."""
    basis, _ = torch.linalg.qr(torch.randn(columns, rows, dtype=torch.float64))
    matrix: Tensor = basis.T.float().contiguous()
    return matrix
