"""What the values in a mask file mean: a table from stored ids or colours to train ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE
from gddctl.data.decode import read_mask_ids, read_mask_rgb

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class MaskReading:
    """A mask, read.

    Attributes:
        label: (H, W) uint8 train ids; pixels without a meaning are 255.
        unknown: stored values that mean nothing here, as text, with their pixel counts.
        stored: the ids that the file holds; empty for colour masks.
    """

    label: NDArray[np.uint8]
    unknown: Mapping[str, int]
    stored: frozenset[int]


@dataclass(frozen=True)
class IdCode:
    """Masks that store one id a pixel.

    Attributes:
        train_ids: stored id -> train id, or 255 to ignore. A stored 255 means ignore unless it is listed.
    """

    train_ids: Mapping[int, int]

    def read(self, path: Path) -> MaskReading:
        """Read a mask file. Raises as :func:`gddctl.data.decode.read_mask`."""
        raw = read_mask_ids(path)
        counts = np.bincount(raw.ravel(), minlength=256)
        stored = [int(value) for value in np.flatnonzero(counts)]
        known = {IGNORE: IGNORE, **self.train_ids}
        table = np.full(counts.size, IGNORE, np.uint8)
        for value in stored:
            table[value] = known.get(value, IGNORE)
        unknown = {str(value): int(counts[value]) for value in stored if value not in known}
        return MaskReading(table[raw], unknown, frozenset(stored))


@dataclass(frozen=True)
class ColorCode:
    """Masks that store one RGB colour a pixel.

    Attributes:
        train_ids: colour -> train id, or 255 to ignore.
    """

    train_ids: Mapping[Rgb, int]

    def read(self, path: Path) -> MaskReading:
        """Read a mask file. Raises as :func:`gddctl.data.decode.read_mask`."""
        rgb = read_mask_rgb(path).astype(np.uint32)
        packed = (rgb[:, :, 0] << 16) | (rgb[:, :, 1] << 8) | rgb[:, :, 2]
        colors, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
        known = {(red << 16) | (green << 8) | blue: train_id for (red, green, blue), train_id in self.train_ids.items()}
        table = np.array([known.get(int(color), IGNORE) for color in colors], np.uint8)
        unknown = {_hex(int(color)): int(n) for color, n in zip(colors, counts, strict=True) if int(color) not in known}
        return MaskReading(table[places.reshape(packed.shape)], unknown, frozenset())


LabelCode = IdCode | ColorCode


def describe_unknown(unknown: Mapping[str, int]) -> str:
    """The commonest stray values of a mask, for a message.

    >>> describe_unknown({"12": 3, "40": 7})
    'value 40 (7 pixels), value 12 (3 pixels)'
    """
    ordered = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"value {value} ({pixels} pixels)" for value, pixels in ordered[:4])
    return text if len(ordered) <= 4 else f"{text} and {len(ordered) - 4} more values"


def _hex(color: int) -> str:
    return f"[{color >> 16}, {(color >> 8) & 255}, {color & 255}]"
