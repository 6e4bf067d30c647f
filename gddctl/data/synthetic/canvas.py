"""A canvas that draws image and label together, at twice the final size so that edges come out smooth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE

SUPERSAMPLING = 2  # drawn pixels per final pixel, each way

# Train ids in the order of the CamVid table.
SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
VOID = IGNORE

Color = tuple[int, int, int]
Points = NDArray[np.float64]  # (N, 2) x, y in drawn pixels


@dataclass(frozen=True)
class Canvas:
    """Image (H, W, 3) RGB and label (H, W), both uint8, both drawn on in place."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]

    def polygon(self, points: Points, color: Color, label: int) -> None:
        """Fill one polygon in image and label."""
        corners = np.rint(points).astype(np.int32)
        cv2.fillPoly(self.image, [corners], color)
        cv2.fillPoly(self.label, [corners], label)

    def paint(self, polygons: NDArray[np.float64] | Sequence[Points], color: Color) -> None:
        """Fill many polygons in the image only: detail on something that has its label already.

        Shape: (M, N, 2), or a list of (N, 2). Where two overlap the even-odd rule leaves a hole, so they must not.
        """
        if len(polygons):
            cv2.fillPoly(self.image, [np.rint(points).astype(np.int32) for points in polygons], color)

    def ellipse(self, center: Points, axes: tuple[float, float], color: Color, label: int | None) -> None:
        """Fill an upright ellipse with half axes ``axes``; with ``label`` None, in the image only."""
        middle = (round(float(center[0])), round(float(center[1])))
        half = (max(1, round(axes[0])), max(1, round(axes[1])))
        cv2.ellipse(self.image, middle, half, 0, 0, 360, color, -1)
        if label is not None:
            cv2.ellipse(self.label, middle, half, 0, 0, 360, label, -1)

    def ring(self, center: Points, radius: float, color: Color, thickness: float) -> None:
        """A circle's outline in the image only."""
        middle = (round(float(center[0])), round(float(center[1])))
        cv2.circle(self.image, middle, max(1, round(radius)), color, max(1, round(thickness)))

    def line(self, start: Points, end: Points, color: Color, thickness: float, label: int | None) -> None:
        """A thick line; with ``label`` None, in the image only."""
        a = (round(float(start[0])), round(float(start[1])))
        b = (round(float(end[0])), round(float(end[1])))
        width = max(1, round(thickness))
        cv2.line(self.image, a, b, color, width)
        if label is not None:
            cv2.line(self.label, a, b, label, width)


def new_canvas(height: int, width: int) -> Canvas:
    """An empty canvas for a scene of ``height`` x ``width`` final pixels; what nobody labels stays void."""
    shape = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    return Canvas(np.zeros((*shape, 3), np.uint8), np.full(shape, VOID, np.uint8))


def finished(canvas: Canvas) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label at their final size: averaged, and picked."""
    step = SUPERSAMPLING
    size = (canvas.label.shape[1] // step, canvas.label.shape[0] // step)
    return cv2.resize(canvas.image, size, interpolation=cv2.INTER_AREA), np.ascontiguousarray(canvas.label[::step, ::step])
