"""One pair of files, looked at: what is wrong with it, and what it adds to the histogram."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE
from gddctl.core.digest import sha256_bytes
from gddctl.core.errors import GddctlError
from gddctl.data.check.report import Finding, Kind
from gddctl.data.decode import decode_image, is_jpeg, read_file
from gddctl.data.label_code import IdCode, LabelCode, MaskReading, describe_unknown

_Report = Callable[[Path, Kind, str], None]


@dataclass(frozen=True)
class PairLook:
    """A pair, looked at.

    Attributes:
        findings: what is wrong with it.
        sha256: of the image file's bytes; None where it cannot be read.
        counts: (256,) pixels by train id, 255 = ignore; None where the mask cannot be read.
        black_and_white: whether the mask stores 255, which is read as ignore, and otherwise nothing but 0.
    """

    findings: tuple[Finding, ...]
    sha256: str | None
    counts: NDArray[np.int64] | None
    black_and_white: bool


def look_at_pair(split: str, index: int, image: Path, label: Path, code: LabelCode, num_classes: int) -> PairLook:
    """Decode a pair and judge it; nothing about the files themselves is raised."""
    findings: list[Finding] = []

    def found(file: Path, kind: Kind, detail: str) -> None:
        findings.append(Finding(split, str(file), kind, detail, index=index))

    sha256, shape = _look_at_image(image, found)
    reading = _look_at_mask(label, code, found)
    if reading is None:
        return PairLook(tuple(findings), sha256, None, False)
    if shape is not None and shape != reading.label.shape:
        sizes = f"{reading.label.shape[1]} x {reading.label.shape[0]} pixels, its image {image.name} {shape[1]} x {shape[0]}"
        found(label, "size-mismatch", f"{sizes} with EXIF orientation applied; make them the same size")
    black_and_white = reading.stored <= {0, IGNORE} and IGNORE in reading.stored and _ignores_255(code)
    if reading.unknown:
        expected = f"expected ids of the {num_classes} classes or ignore"
        found(label, "id-out-of-range", f"{describe_unknown(reading.unknown)}; {expected}; correct the mask or the class list")
    counts = np.bincount(reading.label.ravel(), minlength=256).astype(np.int64)
    if not reading.unknown and counts[IGNORE] == reading.label.size:
        found(label, "all-ignored", f"all {reading.label.size} pixels are ignored; there is nothing to learn from it")
    return PairLook(tuple(findings), sha256, counts, black_and_white)


def _ignores_255(code: LabelCode) -> bool:
    return isinstance(code, IdCode) and code.train_ids.get(IGNORE, IGNORE) == IGNORE


def _look_at_image(image: Path, found: _Report) -> tuple[str | None, tuple[int, int] | None]:
    try:
        data = read_file(image)
    except GddctlError as error:
        found(image, "unreadable-image", _reason(error, image))
        return None, None
    try:
        height, width = decode_image(data, str(image)).shape[:2]
    except GddctlError as error:
        found(image, "unreadable-image", _reason(error, image))
        return sha256_bytes(data), None
    return sha256_bytes(data), (height, width)


def _look_at_mask(label: Path, code: LabelCode, found: _Report) -> MaskReading | None:
    try:
        return code.read(label)
    except GddctlError as error:
        lossy = label.is_file() and is_jpeg(label)
        found(label, "jpeg-mask" if lossy else "unreadable-mask", _reason(error, label))
        return None


def _reason(error: GddctlError, file: Path) -> str:
    """The message without the path, which stands beside it."""
    return str(error).removeprefix(f"{file}: ")
