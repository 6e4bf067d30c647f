"""The camera of a drawn scene: metres in the street to pixels on the canvas."""

from __future__ import annotations

from collections.abc import Sequence
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

    def project(self, points: Sequence[tuple[float, float, float]]) -> NDArray[np.float64]:
        """(N, 2) pixels of N points given as (metres right, metres up, metres ahead)."""
        (x, y), focal, height = self.center, self.focal, self.height
        # A handful of points at a time: plain arithmetic is several times faster than numpy here.
        return np.array([(x + (unit := focal / max(ahead, NEAREST)) * right, y + unit * (height - up)) for right, up, ahead in points])

    def project_many(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """As :meth:`project`, for an array. Shape: (..., 3) -> (..., 2)."""
        unit = self.focal / np.maximum(points[..., 2], NEAREST)
        out = np.empty((*points.shape[:-1], 2))
        out[..., 0] = self.center[0] + unit * points[..., 0]
        out[..., 1] = self.center[1] + unit * (self.height - points[..., 1])
        return out

    def scale(self, depth: float) -> float:
        """Pixels per metre at ``depth`` metres."""
        return self.focal / max(depth, NEAREST)
