"""What goes into a network and what comes out: Batch, Outputs, Teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

STAGES = ("stage1", "stage2", "stage3", "stage4")  # encoder features, shallow to deep; stage4 is the last
HEAD = "head"  # the feature that the head's classifier reads, before dropout
FEATURES = (*STAGES, HEAD)


@dataclass
class Batch:
    """Images and labels of one step, on one device.

    ``images`` (B, 3, h, w) float32, normalised; ``labels`` (B, h, w) int64, 255 = ignore; ``keys`` B hashes of the images' bytes, where
    somebody asked for them.
    """

    images: Tensor
    labels: Tensor
    names: Sequence[str] = ()
    keys: Sequence[str] = ()


@dataclass
class Outputs:
    """What a segmentation network returns; features are returned, never hooked.

    ``logits`` (B, K, h', w') before the final resize; ``features`` ``"stage1"`` … ``"stage4"`` of the encoder and
    ``"head"``, what the classifier reads (the papers' penultimate feature), each (B, C, h', w');
    ``aux`` (B, K, h'', w'') logits of the auxiliary head, in training only.
    """

    logits: Tensor
    features: dict[str, Tensor]
    aux: Tensor | None = None


class Teacher(Protocol):
    """Answers for a batch, without gradient. It is given the batch, not the images: a label-assisted teacher sees the label too."""

    def __call__(self, batch: Batch) -> Outputs:
        """Logits and features for ``batch``, in eval mode, without gradient."""
        ...
