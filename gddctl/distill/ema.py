"""The running average of the weights that is validated and shipped when asked for."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """``average += (1 - decay) * (weights - average)`` after every step, over parameters and floating-point buffers.

    In the first steps the decay is ``(1 + step) / (10 + step)`` where that is smaller (as TensorFlow's moving average does), so
    that the random start does not linger.

    Args:
        model: the network to follow.
        decay: 0..1, e.g. 0.999.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow ``model`` after the update of ``step`` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        mine, theirs = self.model.state_dict(), model.state_dict()
        floating = [key for key, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[key] for key in floating], [theirs[key] for key in floating], 1 - decay)
        for key in mine.keys() - set(floating):
            mine[key].copy_(theirs[key])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state
