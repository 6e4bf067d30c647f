"""Which training images are held out: a few stretches of neighbours, chosen by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from gddctl.core.errors import UsageError

STRETCHES = 4  # frames of a video resemble their neighbours: single images would have a twin in training

T = TypeVar("T")


def held_out_indices(images: int, share: float, seed: int) -> tuple[int, ...]:
    """Indices of the held-out images, ascending: ``share`` of them, at least one, in up to four stretches at random places.

    Args:
        images: of the training split, in its own order, where neighbours are alike.
        share: 0..1, exclusive.
        seed: the same seed holds out the same images.

    Raises:
        UsageError: not one image would be left to train on.

    >>> held_out_indices(20, 0.4, seed=0)
    (3, 4, 8, 9, 12, 13, 17, 18)
    """
    held = max(1, round(share * images))
    if held >= images:
        raise UsageError(
            f"data.holdout.share {share}: holds out {held} of {images} training images, which leaves none to train on",
            remedy="lower the share, or add images",
        )
    lengths = [len(part) for part in np.array_split(np.arange(held), min(STRETCHES, held))]
    # Places among the images that stay, with repetition: stretches may touch, never overlap.
    gaps = np.sort(np.random.default_rng(seed).integers(0, images - held + 1, len(lengths)))
    chosen: list[int] = []
    for gap, length in zip(gaps, lengths, strict=True):
        first = int(gap) + len(chosen)
        chosen += range(first, first + length)
    return tuple(chosen)


def split_off(items: Sequence[T], share: float, seed: int) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """(those that stay for training, those held out), each in their order."""
    held = set(held_out_indices(len(items), share, seed))
    return tuple(item for i, item in enumerate(items) if i not in held), tuple(item for i, item in enumerate(items) if i in held)
