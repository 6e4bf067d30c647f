"""One image looked at more than once: mirrored, at several scales, through a sliding window; logits are averaged, then argmax.

The sliding window is that of mmsegmentation's ``slide`` mode: windows of the network's input size, two thirds of it apart, the last
of each row and column pushed back to the image's edge; where they overlap, their mean counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.config.compare import ViewsConfig
from gddctl.core.errors import UsageError
from gddctl.core.views import listed, windowless_scales, wrong_scales
from gddctl.data.preprocess import Geometry, add_logits, fit, normalise, pad_image, restore_logits, scale_image
from gddctl.prove.predict import predict_masks, require_finite
from gddctl.runtime.protocol import Runtime


@dataclass(frozen=True)
class Views:
    """What is shown of an image. The default shows it once, whole.

    Attributes:
        flip: the mirrored image too.
        scales: factors on the image's own size; other than 1 only with a window, because a finished graph takes one size.
        window: windows of the network's input size over the scaled image, instead of the image resized to that size.

    Raises:
        UsageError: scales that are no factors, stand twice, or come without a window.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window: bool = False

    def __post_init__(self) -> None:
        if wrong := wrong_scales(self.scales):
            raise UsageError(wrong, remedy="for example --scales 0.75,1,1.25 --window")
        if wrong := windowless_scales(self.scales, window=self.window):
            raise UsageError(wrong, remedy="add --window, which scales the image and slides the graph's input over it")

    @property
    def once(self) -> bool:
        """Whether the image is shown once, whole."""
        return self == Views()

    def words(self, info: ModelInfo) -> list[str]:
        """How the image is shown, for the protocol."""
        spec = info.preprocess
        if not self.window:
            shown = ["whole image", f"{spec.resize} to {_by(spec.size)} ({spec.interpolation})"]
        else:
            stride = stride_of(spec.size[0]), stride_of(spec.size[1])
            shown = [f"sliding window {_by(spec.size)} with stride {_by(stride)} over the image"]
        single = "single scale" if self.scales == (1.0,) else f"image scaled by {listed(self.scales)} ({spec.interpolation})"
        return [single, *shown]


ONCE = Views()


def views_of(settings: ViewsConfig) -> Views:
    """What ``compare.views`` says."""
    return Views(flip=settings.flip, scales=settings.scales, window=settings.window)


def require_logits(views: Views, info: ModelInfo) -> None:
    """A model can be shown ``views`` only if its logits can be averaged.

    Raises:
        UsageError: it is a deploy graph and the views are more than the whole image once.
    """
    if info.graph == "deploy" and not views.once:
        raise UsageError(
            f"model '{info.name}' is a deploy graph: it answers with class ids, and flip, scales and window average logits",
            remedy="evaluate the logits file that it was made from, or leave these options out",
        )


def masks_by_views(runtime: Runtime, images: Sequence[NDArray[np.uint8]], views: Views, *, batch: int) -> list[NDArray[np.uint8]]:
    """Class maps of some images, each (H, W, 3) uint8 RGB and its map (H, W) of a size of its own.

    Args:
        runtime: a logits graph, unless the views are the whole image once.
        images: shown whole, they are one call of the runtime; seen by windows or mirrored, each is by itself.
        views: what to show of them.
        batch: windows of one image per call of the runtime.

    Raises:
        ArtifactError: the model answers with NaN, Inf or unknown classes.
    """
    if views.once:
        return predict_masks(runtime, images)
    return [mask_by_views(runtime, image, views, batch=batch) for image in images]


def mask_by_views(runtime: Runtime, image: NDArray[np.uint8], views: Views, *, batch: int = 1) -> NDArray[np.uint8]:
    """Class map of one image from the mean of all its views' logits.

    Memory: the image's logits once, at the scale in hand; with several scales once more, at the image's own size.

    Args:
        runtime: a logits graph.
        image: (H, W, 3) uint8 RGB.
        views: what to show of it.
        batch: windows per call of the runtime.

    Returns:
        (H, W) uint8.

    Raises:
        ArtifactError: the model answers with NaN or Inf.
    """
    spec = runtime.info.preprocess
    original = image.shape[0], image.shape[1]
    if not views.window:
        content = fit(original, spec).content  # no larger than the network's input: a single window, padded where it is smaller
        logits = mean_logits(runtime, scale_image(image, content, spec), views.flip, batch)
        return restore_logits(logits, Geometry(original, content, content))
    total: NDArray[np.float32] | None = None
    for scale in views.scales:
        size = max(1, round(original[0] * scale)), max(1, round(original[1] * scale))
        logits = mean_logits(runtime, scale_image(image, size, spec), views.flip, batch)
        if len(views.scales) == 1:
            return restore_logits(logits, Geometry(original, size, size))
        if total is None:
            total = np.zeros((logits.shape[0], *original), np.float32)
        add_logits(total, logits)
        del logits  # before those of the next scale are made
    assert total is not None  # there is at least one scale
    return restore_logits(total, Geometry(original, original, original))


def stride_of(side: int) -> int:
    """Distance between windows of ``side`` pixels."""
    return max(1, side * 2 // 3)


def window_starts(length: int, side: int) -> list[int]:
    """Where windows of ``side`` pixels start along ``length`` pixels: every pixel is covered, and none sticks out that need not.

    >>> window_starts(10, 6)
    [0, 4]
    >>> window_starts(11, 6)
    [0, 4, 5]
    >>> window_starts(5, 6)
    [0]
    """
    if length <= side:
        return [0]
    stride = stride_of(side)
    count = 1 + math.ceil((length - side) / stride)
    return [min(index * stride, length - side) for index in range(count)]


def mean_logits(runtime: Runtime, image: NDArray[np.uint8], flip: bool, batch: int) -> NDArray[np.float32]:
    """Logits of an image of any size; each pixel's windows, and both directions, weigh the same.

    The mirrored image has windows of its own, from its own left edge.

    Shape: (h, w, 3) uint8 RGB -> (K, h, w) float32.

    Raises:
        ArtifactError: the model answers with NaN or Inf.
    """
    info = runtime.info
    spec, (tall, wide) = info.preprocess, info.preprocess.size
    height, width = image.shape[:2]
    rows, columns = window_starts(height, tall), window_starts(width, wide)
    corners = [(y, x) for y in rows for x in columns]
    weight = np.outer(_share(rows, tall, height), _share(columns, wide, width)) / np.float32(2 if flip else 1)
    total = np.zeros((len(info.classes), height, width), np.float32)
    for mirrored in (False, True) if flip else (False,):
        shown, into = (image[:, ::-1], total[:, :, ::-1]) if mirrored else (image, total)
        for first in range(0, len(corners), batch):
            some = corners[first : first + batch]
            tiles = [normalise(pad_image(shown[y : y + tall, x : x + wide], spec), spec) for y, x in some]
            answers = runtime.run(np.stack(tiles))
            require_finite(answers, info)
            for (y, x), logits in zip(some, answers, strict=True):
                share = weight[y : y + tall, x : x + wide]
                into[:, y : y + tall, x : x + wide] += logits[:, : share.shape[0], : share.shape[1]] * share
    return total


def _share(starts: list[int], side: int, length: int) -> NDArray[np.float32]:
    """For each of ``length`` pixels, one by the number of windows that cover it."""
    covered = np.zeros(length, np.float32)
    for start in starts:
        covered[start : start + side] += 1
    return np.reciprocal(covered)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
