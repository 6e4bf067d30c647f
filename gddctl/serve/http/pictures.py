"""A mask as it is sent: what ``gddctl predict`` writes into files, and raw ids for programs such as the page."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from gddctl.core.classes import ClassTable
from gddctl.core.errors import DataError
from gddctl.serve.files.kinds import encode
from gddctl.serve.http.refusal import Refusal, unsupported


class OutputName(str, Enum):
    """What an image is answered with; the names of ``gddctl predict``, and raw."""

    ids = "ids"
    colors = "colors"
    overlay = "overlay"
    json = "json"
    raw = "raw"


@dataclass(frozen=True)
class Picture:
    """An encoded answer."""

    content: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)


def render(
    output: OutputName, mask: NDArray[np.uint8], classes: ClassTable, image: NDArray[np.uint8] | None, opacity: float, model: str
) -> Picture:
    """Encode ``mask`` as asked.

    Args:
        output: the form.
        mask: (H, W) uint8 class ids.
        classes: names and colours by id.
        image: (H, W, 3) uint8 RGB, for an overlay only.
        opacity: of the overlay's colours, 0..1.
        model: its name, for JSON.

    Raises:
        Refusal: 400, the form cannot hold a mask of this size.
    """
    match output:
        case OutputName.ids | OutputName.colors:
            return Picture(encode(output.value, mask, None, classes, {}, opacity=opacity), "image/png")
        case OutputName.overlay:
            return Picture(_overlay(mask, classes, image, opacity), "image/jpeg")
        case OutputName.json:
            about = {"model": model, "classes": describe_classes(classes)}
            return Picture(encode("json", mask, None, classes, about, opacity=opacity), "application/json")
        case OutputName.raw:
            packed = gzip.compress(np.ascontiguousarray(mask).data, compresslevel=1, mtime=0)
            height, width = mask.shape
            return Picture(packed, "application/octet-stream", {"Content-Encoding": "gzip", "X-Mask-Shape": f"{height},{width}"})
        case _ as never:
            assert_never(never)


def describe_classes(classes: ClassTable) -> list[dict[str, object]]:
    """Ids, names and RGB colours, for JSON."""
    return [{"id": index, "name": item.name, "color": list(item.color)} for index, item in enumerate(classes.classes)]


def _overlay(mask: NDArray[np.uint8], classes: ClassTable, image: NDArray[np.uint8] | None, opacity: float) -> bytes:
    try:
        return encode("overlay", mask, image, classes, {}, opacity=opacity)
    except DataError as error:
        raise _unfit(error) from error


def _unfit(error: DataError) -> Refusal:
    return unsupported(f"{error.message}; ask for output=ids")
