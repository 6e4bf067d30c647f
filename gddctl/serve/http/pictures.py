"""A mask as it is sent: raw ids, a PNG of ids, of colours or of both over the image, or its shares in JSON."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_never

from gddctl.core.classes import ClassTable
from gddctl.prove.overlay import blend

_ROWS = 256  # blended at a time: the blend's floating-point numbers take eight times the image
_PNG_LEVEL = 1  # masks are made of large areas: higher levels take longer for little


class OutputName(str, Enum):
    """What an image is answered with."""

    ids = "ids"
    colour = "colour"
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
    """
    match output:
        case OutputName.ids:
            return Picture(_png(Image.fromarray(mask)), "image/png")
        case OutputName.colour:
            paletted = Image.fromarray(mask).convert("L")
            paletted.putpalette([channel for color in classes.palette for channel in color])
            return Picture(_png(paletted), "image/png")
        case OutputName.overlay:
            assert image is not None
            over = np.empty_like(image)
            for top in range(0, len(image), _ROWS):
                rows = slice(top, top + _ROWS)
                over[rows] = blend(image[rows], mask[rows], classes.palette, opacity=opacity)
            return Picture(_png(Image.fromarray(over)), "image/png")
        case OutputName.json:
            return Picture(_described(mask, classes, model), "application/json")
        case OutputName.raw:
            packed = gzip.compress(np.ascontiguousarray(mask).data, compresslevel=1, mtime=0)
            height, width = mask.shape
            return Picture(packed, "application/octet-stream", {"Content-Encoding": "gzip", "X-Mask-Shape": f"{height},{width}"})
        case _ as never:
            assert_never(never)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=_PNG_LEVEL)
    return stream.getvalue()


def _described(mask: NDArray[np.uint8], classes: ClassTable, model: str) -> bytes:
    counts = np.bincount(mask.ravel(), minlength=len(classes))
    rows = [
        {"id": index, "name": item.name, "color": list(item.color), "pixels": int(counts[index]), "share": int(counts[index]) / mask.size}
        for index, item in enumerate(classes.classes)
    ]
    height, width = mask.shape
    return json.dumps({"model": model, "width": width, "height": height, "classes": rows}, ensure_ascii=False).encode()
