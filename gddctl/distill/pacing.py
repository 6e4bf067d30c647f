"""How far a training is, told to the modules that ask: a share of its iterations that follows from the step's number alone."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from torch import nn
from typing_extensions import assert_never

from gddctl.core.config.gdd import Decay


@runtime_checkable
class Paced(Protocol):
    """A module that depends on how far the training is."""

    def hear(self, progress: float) -> None:
        """``progress``: 0 before the first step, below 1 at the last. Told before every step, so that nothing needs to be saved."""
        ...


def paced_in(module: nn.Module | None) -> list[Paced]:
    """Every module inside ``module``, itself included, that wants to hear."""
    return [] if module is None else [inner for inner in module.modules() if isinstance(inner, Paced)]


def strength_at(progress: float, *, warmup: float, decay: Decay) -> float:
    """The share of a weight that counts at ``progress``: it rises linearly over ``warmup``, then falls to 0 at the end.

    >>> strength_at(0.25, warmup=0.5, decay="linear"), strength_at(0.75, warmup=0.5, decay="linear")
    (0.5, 0.5)
    """
    if progress < warmup:
        return progress / warmup
    passed = (progress - warmup) / (1 - warmup)
    match decay:
        case "none":
            return 1.0
        case "linear":
            return 1 - passed
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * passed))
        case other:
            assert_never(other)
