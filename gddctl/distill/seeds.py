"""Stateless randomness: every draw is named by what it is for, so that only the step number has to be remembered."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def derive(*parts: int | str) -> int:
    """A 32-bit seed from the names of a draw: the same for the same parts on every machine and in every process.

    >>> derive(0, "augment", 3, 17) == derive(0, "augment", 3, 17) != derive(0, "augment", 3, 18)
    True
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def epoch_order(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The order of ``images`` samples in ``epoch``: a permutation of 0 .. images-1."""
    return np.random.default_rng(derive(seed, "order", epoch)).permutation(images)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Of all that process ``rank`` draws in a step (noise, masks, dropout): other processes see other images and must draw other noise."""
    return derive(seed, "step", step, rank)
