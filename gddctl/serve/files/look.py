"""One image through the model, cut into the three stages that overlap: decode and preprocess, infer, back to the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.data.preprocess import Geometry
from gddctl.prove.predict import mask_of, network_input
from gddctl.runtime.protocol import Runtime
from gddctl.serve.window import windowed_mask


@dataclass(frozen=True)
class Prepared:
    """An image made ready. ``image`` is there when it will be looked at again; ``array`` and ``geometry`` unless through a window."""

    size: tuple[int, int]  # (height, width) of the image, pixels
    image: NDArray[np.uint8] | None
    array: NDArray[Any] | None
    geometry: Geometry | None


@dataclass(frozen=True)
class Answered:
    """What the model said: the network's output, or the finished mask where the image was seen through a window."""

    prepared: Prepared
    output: NDArray[Any]


class Look:
    """How images are shown to a model: whole, or through a sliding window; ``batch`` images or windows at a time."""

    def __init__(self, runtime: Runtime, *, window: bool, batch: int) -> None:
        self._runtime, self._window, self._batch = runtime, window, batch

    def prepare(self, image: NDArray[np.uint8], *, keep: bool) -> Prepared:
        """Before the model, in any thread. ``keep``: the image is needed afterwards."""
        size = image.shape[0], image.shape[1]
        if self._window:
            return Prepared(size, image, None, None)
        array, geometry = network_input(image, self._runtime.info)
        return Prepared(size, image if keep else None, array, geometry)

    def infer(self, batch: Sequence[Prepared]) -> list[Answered]:
        """The model's turn, in one thread."""
        if self._window:
            return [Answered(item, windowed_mask(self._runtime, _there(item.image), batch=self._batch)) for item in batch]
        outputs = self._runtime.run(np.stack([_there(item.array) for item in batch]))
        return [Answered(item, output) for item, output in zip(batch, outputs, strict=True)]

    def mask(self, answered: Answered) -> NDArray[np.uint8]:
        """After the model, in any thread: (H, W) uint8 at the image's own size.

        Raises:
            ArtifactError: the model answered with NaN, Inf or unknown classes.
        """
        geometry = answered.prepared.geometry
        return answered.output if geometry is None else mask_of(answered.output, geometry, self._runtime.info)


def _there(array: NDArray[Any] | None) -> NDArray[Any]:
    assert array is not None  # what prepare() made fits what infer() asks for
    return array
