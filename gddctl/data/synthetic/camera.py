"""The camera of a drawn scene: metres in the street to pixels on the canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAREST = 2.2  # metres; nothing is drawn closer, so that the division stays tame


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking down the street.

    Attributes:
        focal: pixels.
        center: (x, y) of the vanishing point, pixels.
        height: of the lens above the road, metres.
    """

    focal: float
    center: tuple[float, float]
    height: float

    def project(self, points: NDArray[np.float64] | list[tuple[float, float, float]]) -> NDArray[np.float64]:
        """Pixels of points given as (metres right, metres up, metres ahead).

        Shape: (..., 3) -> (..., 2).
        """
        where = np.asarray(points, np.float64)
        depth = np.maximum(where[..., 2], NEAREST)
        x = self.center[0] + self.focal * where[..., 0] / depth
        y = self.center[1] + self.focal * (self.height - where[..., 1]) / depth
        return np.stack([x, y], axis=-1)

    def scale(self, depth: float) -> float:
        """Pixels per metre at ``depth`` metres."""
        return self.focal / max(depth, NEAREST)
