"""What a predictor answers: a mask, what its ids mean, and the questions people ask of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import ClassTable
from gddctl.serve.files.kinds import coloured, overlaid, shares


@dataclass(frozen=True)
class Prediction:
    """One segmented image.

    Attributes:
        mask: (H, W) uint8 class ids, at the image's own size.
        classes: names and colours, by id.
        image: (H, W, 3) uint8 RGB, as it was read.
    """

    mask: NDArray[np.uint8]
    classes: ClassTable
    image: NDArray[np.uint8]

    def shares(self) -> dict[str, float]:
        """Share of the pixels, 0..1, by class name; classes that the mask does not show are left out. Largest first."""
        return shares(self.mask, self.classes)

    def colours(self) -> NDArray[np.uint8]:
        """The mask in its classes' colours, (H, W, 3) uint8 RGB."""
        return coloured(self.mask, self.classes)

    def overlay(self, *, opacity: float = 0.55) -> NDArray[np.uint8]:
        """The colours over the image, (H, W, 3) uint8 RGB; ``opacity`` of the colours, 0..1."""
        return overlaid(self.image, self.mask, self.classes, opacity)
