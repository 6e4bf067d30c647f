"""A mask of an image of any size through a sliding window, band by band: no more logits are held than one row of windows is high.

Windows lie as in :mod:`gddctl.prove.views`. Of a logits graph the mask is bit for bit that of ``mask_by_views`` with a window: logits are
averaged where windows overlap. A deploy graph answers with ids, which have no mean: there two neighbours share their overlap half and half,
so that each pixel belongs to the window in whose middle it lies the most.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError
from gddctl.data.preprocess import Geometry, normalise, pad_image, restore_logits
from gddctl.prove.predict import require_finite
from gddctl.prove.views import window_starts
from gddctl.runtime.protocol import Runtime


def windowed_mask(runtime: Runtime, image: NDArray[np.uint8], *, batch: int = 1) -> NDArray[np.uint8]:
    """Class map of one image at its own size.

    Memory, besides image and mask: classes x window height x image width float32 for a logits graph, nothing for a deploy graph.

    Shape: (H, W, 3) uint8 RGB -> (H, W) uint8.

    Args:
        runtime: any graph.
        image: of any size; smaller than the window it is padded.
        batch: windows per call of the runtime.

    Raises:
        ArtifactError: the model answers with NaN, Inf or unknown classes.
    """
    return _by_ids(runtime, image, batch) if runtime.info.graph == "deploy" else _by_logits(runtime, image, batch)


def _by_logits(runtime: Runtime, image: NDArray[np.uint8], batch: int) -> NDArray[np.uint8]:
    info = runtime.info
    tall, wide = info.preprocess.size
    height, width = image.shape[:2]
    rows, columns = window_starts(height, tall), window_starts(width, wide)
    per_row, per_column = _share(rows, tall, height), _share(columns, wide, width)
    mask = np.empty((height, width), np.uint8)
    band = np.zeros((len(info.classes), min(tall, height), width), np.float32)  # logits of the image's rows from `top`
    for index, top in enumerate(rows):
        _add_row(runtime, image, top, columns, band, np.outer(per_row[top : top + tall], per_column), batch)
        bottom = rows[index + 1] if index + 1 < len(rows) else height  # rows above it get nothing from the windows that follow
        done = bottom - top
        part = Geometry((done, width), (done, width), (done, width))
        mask[top:bottom] = restore_logits(band[:, :done], part)
        if index + 1 < len(rows):
            kept = band.shape[1] - done
            band[:, :kept] = band[:, done:].copy()
            band[:, kept:] = 0
    return mask


def _add_row(
    runtime: Runtime,
    image: NDArray[np.uint8],
    top: int,
    columns: list[int],
    band: NDArray[np.float32],
    weight: NDArray[np.float32],
    batch: int,
) -> None:
    """Add to ``band`` the logits of the row of windows at ``top``, each pixel weighed by ``weight``."""
    spec = runtime.info.preprocess
    tall, wide = spec.size
    for first in range(0, len(columns), batch):
        some = columns[first : first + batch]
        tiles = [normalise(pad_image(image[top : top + tall, left : left + wide], spec), spec) for left in some]
        answers = runtime.run(np.stack(tiles))
        require_finite(answers, runtime.info)
        for left, logits in zip(some, answers, strict=True):
            share = weight[:, left : left + wide]
            band[:, :, left : left + wide] += logits[:, : share.shape[0], : share.shape[1]] * share


def _by_ids(runtime: Runtime, image: NDArray[np.uint8], batch: int) -> NDArray[np.uint8]:
    spec = runtime.info.preprocess
    tall, wide = spec.size
    height, width = image.shape[:2]
    mask = np.empty((height, width), np.uint8)
    cells = [(row, column) for row in owned(height, tall) for column in owned(width, wide)]
    for first in range(0, len(cells), batch):
        some = cells[first : first + batch]
        tiles = [pad_image(image[row.start : row.start + tall, column.start : column.start + wide], spec) for row, column in some]
        answers = runtime.run(np.stack(tiles))
        _require_known(answers, runtime.info)
        for (row, column), ids in zip(some, answers, strict=True):
            inside = ids[row.first - row.start : row.last - row.start, column.first - column.start : column.last - column.start]
            mask[row.first : row.last, column.first : column.last] = inside
    return mask


class Owned:
    """Along one side: a window at ``start`` of which the pixels ``first`` to before ``last`` count."""

    def __init__(self, start: int, first: int, last: int) -> None:
        self.start, self.first, self.last = start, first, last


def owned(length: int, side: int) -> list[Owned]:
    """Windows of ``side`` pixels along ``length`` pixels; two neighbours share their overlap half and half.

    >>> [(window.start, window.first, window.last) for window in owned(10, 6)]
    [(0, 0, 5), (4, 5, 10)]
    """
    starts = window_starts(length, side)
    borders = [0, *((left + side + right) // 2 for left, right in pairwise(starts)), length]
    return [Owned(start, first, last) for start, first, last in zip(starts, borders[:-1], borders[1:], strict=True)]


def _require_known(ids: NDArray[np.uint8], info: ModelInfo) -> None:
    if int(ids.max(initial=0)) >= len(info.classes):
        raise ArtifactError(
            f"model '{info.name}' ({info.precision}) answers with class id {int(ids.max())} but names only {len(info.classes)} classes",
            remedy="export it again",
        )


def _share(starts: list[int], side: int, length: int) -> NDArray[np.float32]:
    covered = np.zeros(length, np.float32)
    for start in starts:
        covered[start : start + side] += 1
    return np.reciprocal(covered)
