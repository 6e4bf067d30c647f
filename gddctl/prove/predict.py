"""From an image to a mask at the image's size: the one way that evaluation, parity, overlays and serving all go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError
from gddctl.data.preprocess import Geometry, normalise, resize_image, restore_logits, restore_mask
from gddctl.runtime.protocol import Runtime


def network_input(image: NDArray[np.uint8], info: ModelInfo) -> tuple[NDArray[Any], Geometry]:
    """What the model's graph takes for one image.

    Args:
        image: (H, W, 3) uint8 RGB at its own size.
        info: which graph, and its preprocessing.

    Returns:
        (3, h, w) float32 for a logits graph, (h, w, 3) uint8 for a deploy graph; and how to go back.
    """
    resized, geometry = resize_image(image, info.preprocess)
    match info.graph:
        case "logits":
            return normalise(resized, info.preprocess), geometry
        case "deploy":
            return resized, geometry
        case _:
            assert_never(info.graph)


def mask_of(output: NDArray[Any], geometry: Geometry, info: ModelInfo) -> NDArray[np.uint8]:
    """One image's output, brought to a mask at the image's own size.

    Logits (K, h, w) are resized bilinearly and the largest taken; a mask (h, w) goes by nearest neighbour.

    Raises:
        ArtifactError: the logits hold NaN or Inf, or the mask holds a class that the model does not name.
    """
    if info.graph == "logits":
        require_finite(output, info)
        return restore_logits(output, geometry)
    if output.size and int(output.max()) >= len(info.classes):
        raise ArtifactError(
            f"model '{info.name}' ({info.precision}) answers with class id {int(output.max())} but names only {len(info.classes)} classes",
            remedy="export it again",
        )
    return restore_mask(output, geometry)


def require_finite(logits: NDArray[Any], info: ModelInfo) -> None:
    """Logits, of any shape, that can be compared.

    Raises:
        ArtifactError: they hold NaN or Inf.
    """
    if np.isfinite(logits).all():
        return
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    raise ArtifactError(
        f"model '{info.name}' ({info.precision}) answers with {bad} NaN or Inf values of {logits.size}",
        remedy="look at it with 'gddctl parity' against the model it was made from, and export it again",
    )


def predict_masks(runtime: Runtime, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Masks of a batch of images; each image (H, W, 3) uint8 RGB and its mask (H, W) may have a size of its own.

    Raises:
        ArtifactError: the model answers with NaN, Inf or unknown classes.
    """
    prepared = [network_input(image, runtime.info) for image in images]
    outputs = runtime.run(np.stack([array for array, _ in prepared]))
    return [mask_of(output, geometry, runtime.info) for output, (_, geometry) in zip(outputs, prepared, strict=True)]


def predict_mask(runtime: Runtime, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mask (H, W) uint8 of one image (H, W, 3) uint8 RGB, at the image's own size."""
    return predict_masks(runtime, [image])[0]
