"""GDD's generators: from a noisy aligned feature to the teacher's, as published or for less."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from typing_extensions import assert_never

from gddctl.core.config.gdd import GeneratorForm


def generator_width(form: GeneratorForm, target_channels: int, reduction: int) -> int:
    """Channels at which a generator works; the student is aligned to these."""
    return target_channels if form == "full" else max(1, target_channels // reduction)


def build_generator(form: GeneratorForm, width: int, target_channels: int) -> nn.Sequential:
    """A generator of the given form.

    ``full``: 3x3, ReLU, 3x3, as published. ``bottleneck``: the same at ``width``, then a 1x1 to the target's channels. ``depthwise``: each
    3x3 as a depthwise 3x3 and a 1x1. The last two leave out the last bias, which a loss that ignores a channel's offset cannot see, and
    biases that the 1x1 after them repeats.

    Shape: (B, width, H, W) -> (B, target_channels, H, W).
    """
    match form:
        case "full":
            return nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, target_channels, 3, padding=1)
            )
        case "bottleneck":
            return nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.Conv2d(width, target_channels, 1, bias=False),
            )
        case "depthwise":
            return nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.Conv2d(width, width, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.Conv2d(width, target_channels, 1, bias=False),
            )
        case other:
            assert_never(other)


def noise_gain(generator: nn.Sequential) -> Tensor:
    """How much of a noise shared by all channels the generator's first linear map lets through. Shape: ().

    ||sum over inputs of W|| / ||W||: near 1 for independent weights, 0 where the noise is cancelled exactly. For a depthwise 3x3 ``d`` and
    a 1x1 ``p``, W[o, i] = p[o, i] d[i].
    """
    first = cast(nn.Conv2d, generator[0]).weight.detach().float()  # (O, I, 3, 3), or (I, 1, 3, 3)
    if cast(nn.Conv2d, generator[0]).groups == 1:
        whole_map: Tensor = first.sum(dim=1).norm() / first.norm()
        return whole_map
    point = cast(nn.Conv2d, generator[1]).weight.detach().float().flatten(1)  # (O, I)
    taps = first.flatten(1)  # (I, 9)
    whole = (point.square() @ taps.square().sum(dim=1)).sum().sqrt()
    gain: Tensor = (point @ taps).norm() / whole
    return gain
