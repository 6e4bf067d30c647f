"""One image as layers to be stacked: the photograph, the label, every answer, and where it is wrong, in small files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gddctl.core.classes import IGNORE
from gddctl.core.reports.pictures import Kind
from gddctl.prove.overlay import Palette

LONGEST = 960  # pixels of the longer side: fills a page, and keeps a page of several scenes to some megabytes
_JPEG_QUALITY = 82
_RIGHT, _WRONG = 0, 1
ERROR_PALETTE: Palette = ((72, 78, 86), (255, 92, 40))  # right: slate; wrong: vermilion, which stands out from any photograph


@dataclass(frozen=True)
class Drawn:
    """A layer and its files' contents."""

    title: str
    kind: Kind
    data: bytes
    suffix: str
    errors: bytes | None = None  # PNG
    right: float | None = None  # 0..1, of all pixels at the label's own size


def draw_layers(
    image: NDArray[np.uint8],
    label: NDArray[np.uint8],
    answers: Sequence[tuple[str, NDArray[np.uint8]]],
    palette: Palette,
    *,
    changes: Sequence[tuple[str, str]] = (),
) -> tuple[tuple[int, int], tuple[Drawn, ...]]:
    """Everything about one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8 class ids, 255 = ignore.
        answers: (title, (H, W) uint8 class ids) pairs.
        palette: RGB by class id.
        changes: pairs of titles of answers: where the second differs from the first.

    Returns:
        ((height, width) of the files, layers in the order: image, label, answers, changes).
    """
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))  # OpenCV's order

    def png(mask: NDArray[np.uint8], colours: Palette) -> bytes:
        return indexed_png(np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8), colours)

    def layers() -> Iterator[Drawn]:
        yield Drawn("image", "image", _jpeg(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)), ".jpg")
        yield Drawn("label", "label", png(label, palette), ".png")
        for title, answer in answers:
            wrong = differing(label, answer)
            yield Drawn(title, "answer", png(answer, palette), ".png", png(wrong, ERROR_PALETTE), _share_right(wrong))
        known = dict(answers)
        for first, second in changes:
            changed = differing(known[first], known[second])
            yield Drawn(f"{second} against {first}", "change", png(changed, ERROR_PALETTE), ".png", right=_share_right(changed))

    return (size[1], size[0]), tuple(layers())


def differing(reference: NDArray[np.uint8], answer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where ``answer`` is another class than ``reference``: 1, the same: 0, the reference says nothing: 255. All (H, W) uint8.

    >>> differing(np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 1]], np.uint8)).tolist()
    [[0, 1, 255]]
    """
    found = np.where(answer == reference, _RIGHT, _WRONG)
    return np.where(reference == IGNORE, IGNORE, found).astype(np.uint8)


def indexed_png(mask: NDArray[np.uint8], palette: Palette) -> bytes:
    """(H, W) uint8 ids as a PNG of as few bits per pixel as its colours need; ids without a colour, ignored ones too, are transparent."""
    beyond = len(palette)
    ids = np.where(mask < beyond, mask, beyond).astype(np.uint8)
    picture = Image.frombytes("P", (ids.shape[1], ids.shape[0]), ids.tobytes())
    picture.putpalette([channel for colour in (*palette, (0, 0, 0)) for channel in colour])
    stored = io.BytesIO()
    picture.save(stored, "PNG", transparency=beyond, optimize=True)
    return stored.getvalue()


def _share_right(wrong: NDArray[np.uint8]) -> float | None:
    known = wrong != IGNORE
    return float((wrong[known] == _RIGHT).mean()) if known.any() else None


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(image).save(stored, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return stored.getvalue()
