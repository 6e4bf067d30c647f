"""A fourth input channel for any encoder: the convolutions that read the image are widened, whatever the library calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gddctl.core.errors import ConfigError

PLANE_STD = 0.1  # of the fourth channel's initial weights, as in the released code of Label Assisted Distillation
_PROBE = (1, 3, 64, 96)  # divisible by every stride
_SAME = 1e-3  # of the largest value: a plane of zeros may change the order of sums, nothing more


def widen_stem(encoder: nn.Module, name: str) -> None:
    """Make ``encoder`` take (B, 4, H, W): its weights for red, green and blue stay, those of the plane are drawn from N(0, 0.1^2).

    With a plane of zeros it then answers as it did for the image alone. In place; draws from torch's default generator.

    Args:
        encoder: features from an image, as ``build_encoder`` gives it.
        name: what messages call it.

    Raises:
        ConfigError: nothing in it reads the image by a plain convolution, or something else does too.
    """
    was_training = encoder.training
    encoder.eval()
    image = torch.randn(_PROBE, generator=torch.Generator().manual_seed(0))
    try:
        before, readers = _readers(encoder, image)
        if not readers or any(reader.groups != 1 for reader in readers):
            raise _refused(name, "it does not begin with a plain convolution of the image")
        for reader in readers:
            _widen(reader)
        _check(encoder, name, image, before)
    finally:
        encoder.train(was_training)


@torch.no_grad()
def _readers(encoder: nn.Module, image: Tensor) -> tuple[Tensor, list[nn.Conv2d]]:
    """The deepest feature of ``image``, and the convolutions that were given the image itself."""
    readers: list[nn.Conv2d] = []

    def look(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.Conv2d) and torch.equal(inputs[0], image):
            readers.append(module)

    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d) and module.in_channels == image.shape[1]]
    handles = [module.register_forward_pre_hook(look) for module in convolutions]
    try:
        return encoder(image)[-1], readers
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _widen(reader: nn.Conv2d) -> None:
    weight = reader.weight
    plane = torch.empty_like(weight[:, :1]).normal_(std=PLANE_STD)
    reader.weight = nn.Parameter(torch.cat([weight, plane], dim=1), requires_grad=weight.requires_grad)
    reader.in_channels += 1


@torch.no_grad()
def _check(encoder: nn.Module, name: str, image: Tensor, before: Tensor) -> None:
    """It runs, a plane of zeros changes nothing, and another one something."""
    zeros = torch.zeros_like(image[:, :1])
    try:
        blank, seen = (encoder(torch.cat([image, plane], dim=1))[-1] for plane in (zeros, zeros + 1))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise _refused(name, " ".join(str(error).split())[:160]) from error
    if (blank - before).abs().max() > _SAME * before.abs().max():
        raise _refused(name, "a plane of zeros changes its answer: its stem normalises its weights")
    if torch.equal(seen, blank):
        raise _refused(name, "the plane does not reach its features")


def _refused(name: str, reason: str) -> ConfigError:
    return ConfigError(
        f"encoder '{name}' cannot take the label as a fourth channel ({reason})", remedy="take a ResNet for the label-assisted teacher"
    )
