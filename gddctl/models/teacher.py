"""The frozen teacher: answers, and never learns."""

from __future__ import annotations

import torch

from gddctl.models.protocol import Batch, Outputs
from gddctl.models.segmenter import Segmenter


class FrozenTeacher:
    """A trained network in eval mode without gradient.

    Not an ``nn.Module``: no optimiser, wrapper or checkpoint can pick its weights up by accident, and no ``train()`` reaches it.
    """

    def __init__(self, model: Segmenter) -> None:
        self.model = model.eval().requires_grad_(False)

    @property
    def feature_channels(self) -> dict[str, int]:
        """Channels of ``"stage1"`` … ``"stage4"`` and ``"head"``."""
        return self.model.feature_channels

    def __call__(self, batch: Batch) -> Outputs:
        """Outputs without gradient; eval mode is set anew each time, because the wrapped model is still reachable."""
        self.model.eval()
        with torch.no_grad():  # not inference_mode: what leaves here is saved for the backward pass of the student's loss
            outputs: Outputs = self.model(batch.images)
        return outputs

    def to(self, device: torch.device | str) -> FrozenTeacher:
        """Move the teacher."""
        self.model.to(device)
        return self
