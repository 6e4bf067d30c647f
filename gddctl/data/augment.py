"""Training augmentation: random scale, padding, crop, flip and photometric distortion; the only file that knows albumentations."""

from __future__ import annotations

import os
import random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE
from gddctl.core.lazy import require
from gddctl.core.preprocess import IMAGENET_MEAN

# Photometric distortion as mmsegmentation's PhotoMetricDistortion: each step with probability 0.5.
_STEP = 0.5
_BRIGHTNESS = 32 / 255  # added, share of full scale
_CONTRAST = 0.5  # factor 0.5 .. 1.5
_SATURATION = (0.5, 1.5)  # factor
_HUE = 18 / 180  # shift, share of half the colour circle as OpenCV counts it

_PAD = tuple(round(255 * share) for share in IMAGENET_MEAN)  # about zero after normalisation


class TrainAugment:
    """Cut a random training crop out of a labelled image.

    The result depends on the arguments and ``seed`` alone, never on what was augmented before or in which process.

    Args:
        crop: (height, width) of the result, pixels.
        scale: smallest and largest resize factor, drawn uniformly.
        flip: probability of a horizontal flip.
        color: whether to distort brightness, contrast, saturation and hue.
        ignore: label of padding.
    """

    def __init__(self, crop: tuple[int, int], scale: tuple[float, float], flip: float, color: bool, ignore: int = IGNORE) -> None:
        self._compose = _build(crop, scale, flip, color, ignore)

    def __call__(self, image: NDArray[np.uint8], label: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment one pair.

        Shape: (H, W, 3) uint8 and (H, W) uint8 -> (crop_h, crop_w, 3) uint8 and (crop_h, crop_w) uint8.
        """
        cv2.setNumThreads(0)  # loader processes share the cores; also undone by whoever calls it after us, hence here
        # Not set_random_seed: that gives every step its own generator from the same seed, so that flip, scale and colour would
        # all follow from one number. One shared stream makes them independent.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        done = self._compose(image=image, mask=label)
        return np.ascontiguousarray(done["image"]), np.ascontiguousarray(done["mask"])


def _build(crop: tuple[int, int], scale: tuple[float, float], flip: float, color: bool, ignore: int) -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for a newer version otherwise
    albumentations = require("albumentations", extra="train", why="training augmentation")
    steps = [
        albumentations.RandomScale(
            scale_limit=(scale[0] - 1, scale[1] - 1), interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_NEAREST, p=1.0
        ),
        albumentations.PadIfNeeded(*crop, position="random", border_mode=cv2.BORDER_CONSTANT, fill=_PAD, fill_mask=ignore, p=1.0),
        albumentations.RandomCrop(*crop, p=1.0),
        albumentations.HorizontalFlip(p=flip),
    ]
    if color:
        still = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
        steps += [
            albumentations.RandomBrightnessContrast(brightness_limit=_BRIGHTNESS, contrast_limit=0.0, p=_STEP),
            albumentations.RandomBrightnessContrast(brightness_limit=0.0, contrast_limit=_CONTRAST, p=_STEP),
            albumentations.ColorJitter(**{**still, "saturation": _SATURATION}, p=_STEP),
            albumentations.ColorJitter(**{**still, "hue": (-_HUE, _HUE)}, p=_STEP),
        ]
    return albumentations.Compose(steps, seed=0)
