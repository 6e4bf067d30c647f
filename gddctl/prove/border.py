"""Which pixels lie near a class border: there a small error in the logits shows first."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE

BORDER_PX = 3  # at label size


def near_border(label: NDArray[np.uint8], width: int = BORDER_PX) -> NDArray[np.bool_]:
    """Labelled pixels with a labelled pixel of another class at most ``width`` rows and columns away.

    Ignored pixels are never near a border and make none: the edge of an unlabelled region says nothing about classes.

    Shape: (H, W) uint8 -> (H, W) bool.
    """
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    ignored = label == IGNORE
    # A pixel's own class is in its window, so neither filler can be the largest or smallest class that a labelled pixel sees.
    largest = cv2.dilate(np.where(ignored, np.uint8(0), label), window)
    smallest = cv2.erode(np.where(ignored, np.uint8(IGNORE), label), window)
    near: NDArray[np.bool_] = (largest != smallest) & ~ignored
    return near
