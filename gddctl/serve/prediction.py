"""What a predictor answers: a mask, what its ids mean, and the questions people ask of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import ClassTable
from gddctl.prove.overlay import blend, colour_mask


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
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes))
        named = {name: float(count) / self.mask.size for name, count in zip(self.classes.names, counts, strict=True) if count}
        return dict(sorted(named.items(), key=lambda item: -item[1]))

    def colours(self) -> NDArray[np.uint8]:
        """The mask in its classes' colours, (H, W, 3) uint8 RGB."""
        return colour_mask(self.mask, self.classes.palette)

    def overlay(self, *, opacity: float = 0.55) -> NDArray[np.uint8]:
        """The colours over the image, (H, W, 3) uint8 RGB; ``opacity`` of the colours, 0..1."""
        return blend(self.image, self.mask, self.classes.palette, opacity=opacity)
