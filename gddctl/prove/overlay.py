"""Pictures of masks: blended over the image, and several of them side by side under their titles."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE

Palette = Sequence[tuple[int, int, int]]

_IGNORED = (0, 0, 0)  # ignored pixels are drawn black
_GAP = 6  # pixels of paper between panels
_BAR = 24  # pixels of title above a panel
_INK, _PAPER = (32, 32, 32), 255
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


def colour_mask(mask: NDArray[np.uint8], palette: Palette) -> NDArray[np.uint8]:
    """Class ids in their colours: (H, W) uint8 -> (H, W, 3) uint8 RGB; ids without a colour are black."""
    table = np.full((IGNORE + 1, 3), _IGNORED, np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8)
    return table[mask]


def blend(image: NDArray[np.uint8], mask: NDArray[np.uint8], palette: Palette, *, opacity: float = 0.55) -> NDArray[np.uint8]:
    """The mask's colours over the image, both (H, W); ``opacity`` 0..1 of the colours. Ignored pixels show the image alone."""
    mixed = (1 - opacity) * image + opacity * colour_mask(mask, palette)
    return np.where((mask < len(palette))[..., None], mixed.round().astype(np.uint8), image)


def overlay_strip(
    image: NDArray[np.uint8],
    masks: Sequence[tuple[str, NDArray[np.uint8]]],
    palette: Palette,
    *,
    height: int = 240,
    columns: int | None = None,
) -> NDArray[np.uint8]:
    """The image, then each mask in its colours, side by side with titles.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (title, (H, W) uint8 class ids, 255 = ignore) pairs, e.g. label, teacher, student, INT8.
        palette: RGB by class id.
        height: of a panel, pixels; the width follows the image's shape.
        columns: panels in a row; None: up to four in one row, more in rows of three.

    Returns:
        (rows of (height + title), width of a row's panels, 3) uint8 RGB.
    """
    size = (max(1, round(image.shape[1] * height / image.shape[0])), height)
    shrink = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_CUBIC
    panels = [_titled("image", np.asarray(cv2.resize(image, size, interpolation=shrink), np.uint8))]
    for title, mask in masks:
        resized = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
        panels.append(_titled(title, colour_mask(np.asarray(resized, np.uint8), palette)))
    across = columns or (len(panels) if len(panels) <= 4 else 3)
    blank = np.full_like(panels[0], _PAPER)
    panels += [blank] * (-len(panels) % across)
    rows = [_side_by_side(panels[start : start + across]) for start in range(0, len(panels), across)]
    return np.concatenate(rows, axis=0)


def _side_by_side(panels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    gap = np.full((panels[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)]
    return np.concatenate(parts[1:], axis=1)


def _titled(title: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    canvas = np.full((pixels.shape[0] + _BAR, pixels.shape[1], 3), _PAPER, np.uint8)
    canvas[_BAR:] = pixels
    cv2.putText(canvas, title, (2, _BAR - 8), _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    return canvas
