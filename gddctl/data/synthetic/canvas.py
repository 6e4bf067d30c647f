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
        if isinstance(polygons, np.ndarray):
            if len(polygons):
                cv2.fillPoly(self.image, list(np.rint(polygons).astype(np.int32)), color)
        else:
            cv2.fillPoly(self.image, [np.rint(points).astype(np.int32) for points in polygons], color)

    def darken(self, points: Points, factor: float, only: tuple[int, ...] | None = None) -> None:
        """Cast a shadow: multiply the image inside a polygon, where the label is one of ``only`` if given."""
        low = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
        high = np.ceil(points.max(axis=0)).astype(int) + 1
        here = np.s_[low[1] : max(high[1], 0), low[0] : max(high[0], 0)]
        image, label = self.image[here], self.label[here]
        if not label.size:
            return
        inside = np.zeros(label.shape, np.uint8)
        cv2.fillPoly(inside, [np.rint(points - low).astype(np.int32)], 1)
        if only is not None:
            inside &= np.isin(np.arange(256), only).astype(np.uint8)[label]
        cv2.copyTo(cv2.convertScaleAbs(image, alpha=factor), inside, image)

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
    image = cv2.resize(canvas.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return image, np.ascontiguousarray(canvas.label[::step, ::step])
