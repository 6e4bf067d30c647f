"""Images normalised for one network, normalised anew for another: one factor and one summand per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gddctl.core.preprocess import PreprocessSpec


class Renormalise(nn.Module):
    """(pixel - mean) / std of ``given`` to that of ``wanted``; the order of channels too. Not a bit is changed where they agree.

    No state dict holds its constants: what they are follows from the two specs.
    """

    def __init__(self, given: PreprocessSpec, wanted: PreprocessSpec) -> None:
        super().__init__()
        self.same = is_same(given, wanted)
        self._swap = given.channel_order != wanted.channel_order
        order = (0, 1, 2) if wanted.channel_order == "rgb" else (2, 1, 0)  # specs list their numbers in RGB order
        scale = [given.std[channel] / wanted.std[channel] for channel in order]
        shift = [(given.mean[channel] - wanted.mean[channel]) / wanted.std[channel] for channel in order]
        self.register_buffer("_scale", torch.tensor(scale, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", torch.tensor(shift, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    _scale: Tensor
    _shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Shape: (B, 3, h, w) -> the same."""
        if self.same:
            return images
        if self._swap:
            images = images.flip(1)
        return torch.addcmul(self._shift, images, self._scale)


def is_same(given: PreprocessSpec, wanted: PreprocessSpec) -> bool:
    """Whether both normalise alike; their sizes do not matter."""
    return (given.mean, given.std, given.channel_order) == (wanted.mean, wanted.std, wanted.channel_order)
