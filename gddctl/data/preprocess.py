"""Image to network input and back: the one resize, the one normalisation and the one way home for every part of gddctl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE
from gddctl.core.preprocess import PreprocessSpec

Number = TypeVar("Number", np.uint8, np.float32)


@dataclass(frozen=True)
class Geometry:
    """Where the source image lies in the network input. All are (height, width) in pixels.

    Attributes:
        original: the source image.
        content: the part of the input, from its top left corner, that shows the source; the rest is padding.
        size: the network input.
    """

    original: tuple[int, int]
    content: tuple[int, int]
    size: tuple[int, int]


def fit(original: tuple[int, int], spec: PreprocessSpec) -> Geometry:
    """Where an image of ``original`` (height, width) lands in the input.

    >>> fit((100, 400), PreprocessSpec(size=(64, 128), resize="letterbox")).content
    (32, 128)
    """
    if spec.resize == "stretch":
        return Geometry(original, spec.size, spec.size)
    ratio = min(spec.size[0] / original[0], spec.size[1] / original[1])
    content = (min(spec.size[0], max(1, round(original[0] * ratio))), min(spec.size[1], max(1, round(original[1] * ratio))))
    return Geometry(original, content, spec.size)


def resize_image(image: NDArray[np.uint8], spec: PreprocessSpec) -> tuple[NDArray[np.uint8], Geometry]:
    """Bring an RGB image to the network's size.

    Args:
        image: (H, W, 3) uint8.
        spec: size, fit and interpolation.

    Returns:
        (h, w, 3) uint8 RGB, the deploy graph's input, and where the image lies in it. Where nothing had to change it is
        ``image`` itself.
    """
    geometry = fit((image.shape[0], image.shape[1]), spec)
    small = _resize(image, geometry.content, _interpolation(geometry, spec))
    return _pad(small, geometry, spec.pad_value), geometry


def scale_image(image: NDArray[np.uint8], size: tuple[int, int], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Bring an RGB image to any ``size`` (height, width), by the interpolation of ``spec``.

    Shape: (H, W, 3) uint8 -> (*size, 3) uint8; ``image`` itself where nothing had to change.
    """
    geometry = Geometry((image.shape[0], image.shape[1]), size, size)
    return _resize(image, size, _interpolation(geometry, spec))


def pad_image(image: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Pad an RGB image that is no larger than the network's input, right and below, as a letterbox is padded.

    Shape: (H, W, 3) uint8 -> (h, w, 3) uint8; ``image`` itself where nothing had to change.
    """
    content = image.shape[0], image.shape[1]
    return _pad(image, Geometry(content, content, spec.size), spec.pad_value)


def resize_label(label: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Bring a label to the network's size as :func:`resize_image` brings its image: nearest neighbour, padding is ignore.

    Shape: (H, W) uint8 -> (h, w) uint8.
    """
    geometry = fit((label.shape[0], label.shape[1]), spec)
    return _pad(_resize(label, geometry.content, cv2.INTER_NEAREST_EXACT), geometry, IGNORE)


def normalise(image_u8: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std, as float32, channels first: the logits graph's input.

    ``mean`` and ``std`` are in RGB order; with ``channel_order: bgr`` the finished channels are swapped.

    Shape: (h, w, 3) uint8 RGB -> (3, h, w) float32.
    """
    height, width = image_u8.shape[:2]
    out = np.empty((3, height, width), np.float32)
    order = (0, 1, 2) if spec.channel_order == "rgb" else (2, 1, 0)
    for place, channel in enumerate(order):
        gain, shift = gain_and_shift(spec, channel)
        np.multiply(image_u8[:, :, channel], gain, out=out[place], dtype=np.float32)
        out[place] += shift
    return out


def gain_and_shift(spec: PreprocessSpec, channel: int) -> tuple[np.float32, np.float32]:
    """The float32 factor and summand that normalise a 0..255 value of RGB channel ``channel``: one rounding for all users."""
    return np.float32(1.0 / (255.0 * spec.std[channel])), np.float32(-spec.mean[channel] / spec.std[channel])


def restore_logits(logits: NDArray[np.float32], geometry: Geometry) -> NDArray[np.uint8]:
    """Class map at the source's size: crop the padding, resize each class bilinearly (half-pixel centres), then argmax.

    Ties go to the lower id, as in numpy and torch.

    Shape: (K, h, w) float -> (H, W) uint8.
    """
    height, width = geometry.content
    inside = np.asarray(logits[:, :height, :width], np.float32)
    best = _resize(inside[0], geometry.original, cv2.INTER_LINEAR)
    best = np.array(best)  # own memory: it is written to below
    mask = np.zeros(geometry.original, np.uint8)
    for k in range(1, inside.shape[0]):
        layer = _resize(inside[k], geometry.original, cv2.INTER_LINEAR)
        mask[layer > best] = k
        np.maximum(best, layer, out=best)
    return mask


def add_logits(total: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Add logits of another size to ``total``, each class resized as :func:`restore_logits` resizes it, one at a time.

    Shape: total (K, H, W) float32, written to; logits (K, h, w) float32.
    """
    for into, layer in zip(total, logits, strict=True):
        into += _resize(layer, (into.shape[0], into.shape[1]), cv2.INTER_LINEAR)


def restore_margin(logits: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """By how much the first class leads the second at the source's size, each class resized as :func:`restore_logits` resizes it.

    Shape: (K, h, w) float -> (H, W) float32, at least 0; infinite where there is but one class.
    """
    height, width = geometry.content
    inside = np.asarray(logits[:, :height, :width], np.float32)
    first = np.array(_resize(inside[0], geometry.original, cv2.INTER_LINEAR))
    second = np.full_like(first, -np.inf)
    for k in range(1, inside.shape[0]):
        layer = _resize(inside[k], geometry.original, cv2.INTER_LINEAR)
        np.maximum(second, np.minimum(first, layer), out=second)
        np.maximum(first, layer, out=first)
    margin: NDArray[np.float32] = first - second
    return margin


def restore_mask(mask: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Class map at the source's size: crop the padding, nearest neighbour.

    Not OpenCV's: where a pixel's centre lies between two of the mask's, versions 4 and 5 take different ones, and a released mask must
    be the same on every machine.

    Shape: (h, w) uint8 -> (H, W) uint8.
    """
    height, width = geometry.content
    rows, columns = nearest(height, geometry.original[0]), nearest(width, geometry.original[1])
    inside = mask[:height, :width]
    return inside.copy() if inside.shape == geometry.original else inside.take(columns, axis=1).take(rows, axis=0)


def nearest(size: int, wanted: int) -> NDArray[np.int64]:
    """For each of ``wanted`` pixels, which of ``size`` its centre falls on, in whole numbers; between two, the later one.

    >>> nearest(2, 4).tolist(), nearest(4, 2).tolist()
    ([0, 0, 1, 1], [1, 3])
    """
    return (2 * np.arange(wanted, dtype=np.int64) + 1) * size // (2 * wanted)


def _interpolation(geometry: Geometry, spec: PreprocessSpec) -> int:
    """Area averaging needs both sides to shrink; growing is always bilinear."""
    shrinks = geometry.content[0] <= geometry.original[0] and geometry.content[1] <= geometry.original[1]
    return cv2.INTER_AREA if spec.interpolation == "area" and shrinks else cv2.INTER_LINEAR


def _resize(array: NDArray[Number], size: tuple[int, int], interpolation: int) -> NDArray[Number]:
    if array.shape[:2] == size:
        return array
    resized: NDArray[Number] = cv2.resize(np.ascontiguousarray(array), (size[1], size[0]), interpolation=interpolation)  # type: ignore[assignment]
    return resized


def _pad(array: NDArray[np.uint8], geometry: Geometry, value: int) -> NDArray[np.uint8]:
    if array.shape[:2] == geometry.size:
        return array
    out = np.full((*geometry.size, *array.shape[2:]), value, np.uint8)
    out[: array.shape[0], : array.shape[1]] = array
    return out
