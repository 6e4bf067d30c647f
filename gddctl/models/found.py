"""What a family's reader found in somebody's checkpoint: the network with its weights, and what the files say about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gddctl.core.artifact.network import ImportedNetwork
from gddctl.core.preprocess import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Normalisation:
    """How a network wants its images: mean and std in RGB order, of pixel / 255; the order of its channels."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channel_order: str = "rgb"


@dataclass(frozen=True)
class Found:
    """A checkpoint, read.

    Attributes:
        body: the network with its weights; see :class:`gddctl.models.external.Body`.
        outputs: channels of its logits.
        describe: common settings of an imported network -> its section of the card.
        names: its classes in the order of its logits, where the files say so.
        normalisation: what the files say, else the family's own; None: neither is known.
        multiple: see :class:`gddctl.models.external.External`.
        size: the only (height, width) that it takes; None: it takes any.
        licence: where the files say so.
    """

    body: nn.Module
    outputs: int
    describe: Callable[[Mapping[str, Any]], ImportedNetwork]
    names: tuple[str, ...] | None = None
    normalisation: Normalisation | None = field(default_factory=Normalisation)
    multiple: int = 1
    size: tuple[int, int] | None = None
    licence: str | None = None
