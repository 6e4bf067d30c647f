"""Decoded, resized pairs kept in memory that all loader processes share."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]

MEMORY_SHARE = 0.5  # of the memory that is free when the cache is made; the rest is for training


class PairCache:
    """Pairs of one size, filled at first use by whichever process comes by.

    The memory is an anonymous shared mapping: processes forked afterwards see what any of them has filled in. Two that fill
    the same place at once write the same bytes. Where memory does not suffice for all pairs the first ones are kept.

    Args:
        pairs: how many there are.
        size: (height, width) of every pair.
        budget: bytes it may take.
    """

    def __init__(self, pairs: int, size: tuple[int, int], budget: int) -> None:
        self._size = size
        self._pixels = size[0] * size[1]
        self.kept = max(0, min(pairs, budget // (4 * self._pixels + 1)))
        self._filled: NDArray[np.uint8] = _shared(self.kept)
        self._images: NDArray[np.uint8] = _shared(self.kept * 3 * self._pixels)
        self._labels: NDArray[np.uint8] = _shared(self.kept * self._pixels)

    def get(self, index: int, make: Callable[[], Pair]) -> Pair:
        """The pair at ``index``, made by ``make`` the first time. The arrays are views that must not be written to.

        Shape: (h, w, 3) and (h, w), uint8.
        """
        if index >= self.kept:
            return make()
        image = self._images[index * 3 * self._pixels :][: 3 * self._pixels].reshape(*self._size, 3)
        label = self._labels[index * self._pixels :][: self._pixels].reshape(self._size)
        if not self._filled[index]:
            image[:], label[:] = make()
            self._filled[index] = 1  # last: whoever sees it set sees the pixels
        image.flags.writeable = label.flags.writeable = False
        return image, label


def memory_budget(processes: int) -> int:
    """Bytes that each of ``processes`` on this machine may keep."""
    return int(MEMORY_SHARE * _available() / processes)


def _available() -> int:
    """Bytes of memory that can be had without swapping; a gibibyte where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return 2**30


def _shared(size: int) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8)
