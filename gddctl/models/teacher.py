"""The frozen teacher: answers, and never learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from gddctl.models.external import External
from gddctl.models.protocol import Batch, Outputs
from gddctl.models.renormalise import Renormalise
from gddctl.models.segmenter import Segmenter


class FrozenTeacher:
    """A trained network in eval mode without gradient.

    Not an ``nn.Module``: no optimiser, wrapper or checkpoint can pick its weights up by accident, and no ``train()`` reaches it.

    Args:
        model: trained here or imported.
        renormalise: from the student's normalisation to the model's own; None: they are the same.
        order: class k of the answer is channel ``order[k]`` of the model's logits; None: they are given as they are.
    """

    def __init__(self, model: Segmenter | External, renormalise: Renormalise | None = None, order: Sequence[int] | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self._renormalise = renormalise
        self._order = None if order is None else torch.tensor(tuple(order), dtype=torch.int64)

    @property
    def feature_channels(self) -> dict[str, int]:
        """Channels of ``"stage1"`` … ``"stage4"`` and ``"head"``; of an imported network, of those that it has."""
        return self.model.feature_channels

    def __call__(self, batch: Batch) -> Outputs:
        """Outputs without gradient; eval mode is set anew each time, because the wrapped model is still reachable."""
        self.model.eval()
        with torch.no_grad():  # not inference_mode: what leaves here is saved for the backward pass of the student's loss
            images = batch.images if self._renormalise is None else self._renormalise(batch.images)
            outputs: Outputs = self.model(images)
            if self._order is not None:
                outputs = replace(outputs, logits=outputs.logits.index_select(1, self._order))
        return outputs

    def to(self, device: torch.device | str) -> FrozenTeacher:
        """Move the teacher."""
        self.model.to(device)
        if self._order is not None:
            self._order = self._order.to(device)
        if self._renormalise is not None:
            self._renormalise.to(device)
        return self
