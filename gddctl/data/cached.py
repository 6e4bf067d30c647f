"""A dataset at network size, kept in memory: decoding and resizing happen once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import ClassTable
from gddctl.core.errors import UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.dataset import Sample, SegDataset
from gddctl.data.preprocess import resize_image, resize_label

_BYTES_PER_PIXEL = 4  # three of image, one of label
_SHARE_OF_MEMORY = 0.6  # of what is free; the rest is the training's own


class ResizedDataset:
    """``dataset`` with every pair resized by ``spec``: image (h, w, 3) uint8, label (h, w) uint8.

    With ``cache="ram"`` a pair is read once. Call :meth:`fill` before loader processes fork, so that they share the memory.

    Args:
        dataset: pairs at their own size.
        spec: the resize.
        cache: keep what was read, or not.

    Raises:
        UsageError: the cache would not fit into the free memory.
    """

    def __init__(self, dataset: SegDataset, spec: PreprocessSpec, cache: Literal["none", "ram"] = "none") -> None:
        self._dataset, self._spec = dataset, spec
        self._images: NDArray[np.uint8] | None = None
        self._labels: NDArray[np.uint8] | None = None
        self._full = np.zeros(len(dataset), np.bool_)
        if cache == "ram":
            _check_memory(len(dataset), spec)
            self._images = np.zeros((len(dataset), *spec.size, 3), np.uint8)  # the system hands out pages as they are written
            self._labels = np.zeros((len(dataset), *spec.size), np.uint8)

    @property
    def classes(self) -> ClassTable:
        """Those of the set."""
        return self._dataset.classes

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """The resized pair; from the cache it is a view that must not be written to."""
        if self._images is None or self._labels is None:
            return self._read(index)
        if not self._full[index]:
            sample = self._read(index)
            self._images[index], self._labels[index] = sample.image, sample.label
            self._full[index] = True
        return Sample(self._images[index], self._labels[index], self._dataset.name(index))

    def fill(self, threads: int = 2) -> None:
        """Read everything now; without a cache, nothing happens. Raises what reading a pair raises."""
        if self._images is not None:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(self.__getitem__, range(len(self))):
                    pass

    def name(self, index: int) -> str:
        """The sample's name, without decoding anything."""
        return self._dataset.name(index)

    def files(self, index: int) -> tuple[Path, Path] | None:
        """Paths of the image and the label; None for drawn scenes."""
        return self._dataset.files(index)

    def content_sha256(self, index: int) -> str:
        """As the set's: of the image before the resize."""
        return self._dataset.content_sha256(index)

    def _read(self, index: int) -> Sample:
        sample = self._dataset[index]
        image, _ = resize_image(sample.image, self._spec)
        return Sample(image, resize_label(sample.label, self._spec), sample.name)


def _check_memory(count: int, spec: PreprocessSpec) -> None:
    needed = count * spec.size[0] * spec.size[1] * _BYTES_PER_PIXEL
    free = _free_memory()
    if free is not None and needed > _SHARE_OF_MEMORY * free:
        raise UsageError(
            f"data.cache: 'ram' needs {needed / 2**30:.1f} GiB for {count} pairs of {spec.size[0]} x {spec.size[1]}, "
            f"{free / 2**30:.1f} GiB are free",
            remedy="set data.cache: none",
        )


def _free_memory() -> int | None:
    """Bytes that a process can still have; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
