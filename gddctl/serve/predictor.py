"""The small Python API: ``gddctl.load(path).predict(image)``."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import ClassTable
from gddctl.prove.predict import predict_mask
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Device, Runtime
from gddctl.serve.prediction import Prediction
from gddctl.serve.source import to_rgb
from gddctl.serve.window import windowed_mask

if TYPE_CHECKING:
    from gddctl.serve.source import ImageLike

__all__ = ["Prediction", "Predictor", "load"]


class Predictor:
    """An opened model that answers images with masks. Usable as a context manager; safe to keep open."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""
        return self._runtime.info

    @property
    def classes(self) -> ClassTable:
        """Names and colours, by the mask's ids."""
        return self._runtime.info.classes

    def predict(self, image: ImageLike, *, window: bool = False) -> Prediction:
        """Segment one image.

        Args:
            image: a path, the bytes of an image file, a Pillow image, or a (H, W, 3) uint8 RGB array of any size.
            window: slide the network's input over the image at its own size, instead of resizing the image to it.

        Returns:
            The mask at the image's own size, and what to read it with.

        Raises:
            DataError: the image cannot be read, or the array is not 8-bit RGB.
            ArtifactError: the model answers with NaN.
        """
        pixels = to_rgb(image)
        mask = windowed_mask(self._runtime, pixels) if window else predict_mask(self._runtime, pixels)
        return Prediction(mask=mask, classes=self.classes, image=pixels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runtime.__exit__(kind, error, trace)


def load(path: str | os.PathLike[str], device: Device = "cpu", threads: int | None = None) -> Predictor:
    """Open a bundle folder (needs torch) or an exported file (does not).

    Args:
        path: a bundle folder or an ``.onnx`` file.
        device: ``"cpu"`` or ``"cuda"``; one that does not load is an error, never replaced by another.
        threads: CPU threads; None takes every core this process may use.

    Raises:
        UsageError: no such path, or not a model.
        ArtifactError: broken, tampered with, or made for another runtime.
        EnvironmentMissing: the runtime or the device is not there.
    """
    return Predictor(open_runtime(Path(path), device=device, threads=threads))
