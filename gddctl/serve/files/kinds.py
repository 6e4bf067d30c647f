"""What can be written about an image: its ids, its colours, an overlay, a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_never

from gddctl.core.classes import ClassTable
from gddctl.core.errors import DataError, UsageError
from gddctl.prove.overlay import blend, colour_mask

Kind = Literal["overlay", "colors", "ids", "json"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_QUALITY = 92  # of JPEG: an overlay is looked at, never read back
_LARGEST_JPEG = 65_500  # pixels a side, the limit of libjpeg
_BAND = 1 << 20  # pixels that are blended at once: blending computes in 64-bit floats
# Class maps are runs of equal bytes: unfiltered rows pack as well as filtered ones, in a third of the time (0.4 ms for 360 x 480).
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3] + (
    [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
)


def parse_kinds(words: list[str]) -> tuple[Kind, ...]:
    """Names of kinds, one by one or with commas between them, in the order of :data:`KINDS`.

    >>> parse_kinds(["json,ids", "ids"])
    ('ids', 'json')

    Raises:
        UsageError: a name that is none.
    """
    names = {name.strip() for word in words for name in word.split(",")}
    unknown = sorted(names - set(KINDS))
    if unknown or not names:
        raise UsageError(f"--output {','.join(unknown) or 'nothing'}: expected {', '.join(KINDS)}", remedy="separate several with commas")
    return tuple(kind for kind in KINDS if kind in names)


def suffix_of(kind: Kind) -> str:
    """Of the file that holds one image's result."""
    match kind:
        case "overlay":
            return ".jpg"
        case "colors" | "ids":
            return ".png"
        case "json":
            return ".json"
        case _ as never:
            assert_never(never)


def encode(
    kind: Kind, mask: NDArray[np.uint8], image: NDArray[np.uint8] | None, classes: ClassTable, about: Mapping[str, Any], *, opacity: float
) -> bytes:
    """One kind of result of one image, as the bytes of its file.

    Args:
        kind: which.
        mask: (H, W) uint8 class ids.
        image: (H, W, 3) uint8 RGB; only an overlay needs it.
        classes: names and colours.
        about: what the JSON line says besides size and shares.
        opacity: of an overlay's colours, 0..1.

    Raises:
        DataError: an overlay too large for JPEG.
    """
    match kind:
        case "overlay":
            assert image is not None
            return _jpeg(overlaid(image, mask, classes, opacity), str(about.get("image", "the image")))
        case "colors":
            return _palette_png(mask, classes)
        case "ids":
            return bytes(cv2.imencode(".png", mask, _PNG)[1].data)
        case "json":
            return json_line(mask, classes, about)
        case _ as never:
            assert_never(never)


def json_line(mask: NDArray[np.uint8], classes: ClassTable, about: Mapping[str, Any]) -> bytes:
    """What ``about`` says, the mask's size and the shares of its classes; one line, so that files concatenate."""
    height, width = mask.shape
    line = {**about, "width": width, "height": height, "shares": shares(mask, classes)}
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def shares(mask: NDArray[np.uint8], classes: ClassTable) -> dict[str, float]:
    """Share of the pixels, 0..1, by class name, largest first; classes that the mask does not show are left out."""
    counts = np.zeros(len(classes), np.int64)
    rows = max(1, _BAND // mask.shape[1])  # the histogram counts in 32-bit floats, exact up to 2^24
    for top in range(0, mask.shape[0], rows):
        counts += cv2.calcHist([mask[top : top + rows]], [0], None, [len(classes)], [0, len(classes)]).ravel().astype(np.int64)
    named = {name: float(count) / mask.size for name, count in zip(classes.names, counts, strict=True) if count}
    return dict(sorted(named.items(), key=lambda item: -item[1]))


def overlaid(image: NDArray[np.uint8], mask: NDArray[np.uint8], classes: ClassTable, opacity: float) -> NDArray[np.uint8]:
    """The mask's colours over the image, (H, W, 3) uint8 RGB."""
    rows = max(1, _BAND // mask.shape[1])
    if rows >= mask.shape[0]:
        return blend(image, mask, classes.palette, opacity=opacity)
    out = np.empty_like(image)
    for top in range(0, mask.shape[0], rows):
        band = slice(top, top + rows)
        out[band] = blend(image[band], mask[band], classes.palette, opacity=opacity)
    return out


def coloured(mask: NDArray[np.uint8], classes: ClassTable) -> NDArray[np.uint8]:
    """The mask in its classes' colours, (H, W, 3) uint8 RGB."""
    return colour_mask(mask, classes.palette)


def _jpeg(rgb: NDArray[np.uint8], place: str) -> bytes:
    if max(rgb.shape) > _LARGEST_JPEG:
        raise DataError(
            f"{place}: {rgb.shape[1]} x {rgb.shape[0]} pixels, and an overlay is a JPEG of at most {_LARGEST_JPEG} a side",
            remedy="ask for --output colors or ids",
        )
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].data)


def _palette_png(mask: NDArray[np.uint8], classes: ClassTable) -> bytes:
    """A tenth of the size of an RGB picture, and the same colours to every reader."""
    import io

    picture = Image.fromarray(mask)
    picture.putpalette([channel for color in classes.palette for channel in color])
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
