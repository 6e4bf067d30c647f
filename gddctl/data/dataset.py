"""The two nouns of the data room: a labelled image, and a set of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import ClassTable


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        label: (H, W) uint8 train ids, 255 = ignore.
        name: what the sample is called in reports; unique within its split.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    name: str


class SegDataset(Protocol):
    """A split of labelled images. Reading an index twice gives equal arrays; indices run from 0 to ``len - 1``."""

    @property
    def classes(self) -> ClassTable:
        """Names and colours in the order of the train ids."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def name(self, index: int) -> str:
        """The sample's name, without decoding anything."""
        ...

    def files(self, index: int) -> tuple[Path, Path] | None:
        """Paths of the image and the label; None for drawn scenes."""
        ...

    def content_sha256(self, index: int) -> str:
        """SHA-256 of the image file's bytes; of the pixels where there is no file."""
        ...
