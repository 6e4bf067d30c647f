"""Class weights of the cross entropy, from a config and the pixels counted in the training labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gddctl.core.errors import ConfigError

_ENET = 1.02  # the constant of ENet (arXiv:1606.02147): weights lie in 1 / ln(2.02) .. 1 / ln(1.02)


def inverse_log(shares: Sequence[float]) -> tuple[float, ...]:
    """``1 / ln(1.02 + share)`` of each class, scaled to a mean of 1, so that the learning rate keeps its meaning.

    Args:
        shares: of each class in the labelled pixels, 0..1.

    >>> weights = inverse_log([0.9, 0.1])
    >>> round(sum(weights), 6), weights[0] < weights[1]
    (2.0, True)
    """
    raw = [1 / math.log(_ENET + share) for share in shares]
    mean = sum(raw) / len(raw)
    return tuple(value / mean for value in raw)


def explicit(weights: Sequence[float], names: Sequence[str]) -> tuple[float, ...]:
    """The weights a config lists.

    Raises:
        ConfigError: not one for each class.
    """
    if len(weights) != len(names):
        raise ConfigError(
            f"train.class_weights: {len(weights)} values for {len(names)} classes",
            remedy=f"give one for each of: {', '.join(names)}",
        )
    return tuple(weights)
