"""Image files to arrays, with Pillow: whatever the mode, images come out as 8-bit RGB and masks as the ids they store."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gddctl.core.errors import DataError, ImageTooLarge, UsageError
from gddctl.data.strangers import Tedious, open_common

# Everything Pillow was seen to raise on damaged files, besides its own OSError family.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    MemoryError,
    Tedious,
)

_WIDE_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SKIP = "restore the file, or leave it out with --skip-bad"  # of a data set
_ORIENTATION = 0x0112  # EXIF 2.32, tag "Orientation": 1 is upright, 2 to 8 are turned or mirrored
_BAND = 1 << 22  # pixels that are converted at once
REPLACE = "replace it with a whole image file"


def read_image(path: Path, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Raises:
        UsageError: there is no such file.
        DataError: the file is damaged or of a mode that has no 8-bit RGB reading; the message names it.
        ImageTooLarge: see :func:`decode_image`.
    """
    return decode_image(read_file(path), str(path), max_pixels=max_pixels)


def decode_image(data: bytes, place: str, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Decode an encoded image to (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    16-bit channels keep their high byte; alpha is dropped; palettes, grey and CMYK are converted.

    Args:
        data: the encoded file.
        place: what to call it in an error.
        max_pixels: width times height that the header may claim; None: Pillow's own limit, twice ``Image.MAX_IMAGE_PIXELS``. A caller
            that names one reads files of strangers: it also gets only the common formats, and no files that take more work than images
            do (see :mod:`gddctl.data.strangers`).

    Raises:
        DataError: damaged, no image, or pixels that are not 8 or 16 bits.
        ImageTooLarge: the header claims more pixels than ``max_pixels``; none has been decoded.
    """
    if max_pixels is None:
        try:
            with Image.open(io.BytesIO(data)) as opened:
                return from_pillow(opened, place)
        except _DAMAGE as error:
            raise _damaged(place, "image", error) from error
    with open_limited(data, place, max_pixels=max_pixels) as opened:
        return from_pillow(opened, place, remedy=REPLACE)


@contextmanager
def open_limited(data: bytes, place: str, *, max_pixels: int) -> Iterator[Image.Image]:
    """An encoded image whose header has been read and no more, so that its ``size``, as stored, is known.

    Raises:
        DataError, ImageTooLarge: as :func:`decode_image`.
    """
    try:
        opened = open_common(data)
    except _DAMAGE as error:
        raise _damaged(place, "image", error, REPLACE) from error
    with opened:
        if opened.width * opened.height > max_pixels:
            raise ImageTooLarge(place, opened.width, opened.height, max_pixels)
        yield opened


def from_pillow(image: Image.Image, place: str, *, remedy: str = _SKIP) -> NDArray[np.uint8]:
    """An opened Pillow image as (H, W, 3) uint8 RGB, by the rules of :func:`decode_image`."""
    try:
        image.load()
        upright = image.getexif().get(_ORIENTATION, 1) not in range(2, 9)
        return _rgb(image if upright else ImageOps.exif_transpose(image), place)  # which would copy an upright image too
    except _DAMAGE as error:
        raise _damaged(place, "image", error, remedy) from error


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask file as (H, W) uint8: grey values or palette indices, as stored.

    Raises:
        UsageError: there is no such file.
        DataError: damaged, lossy (JPEG), colour-coded, or an id above 255; the message names the file.
    """
    ids = read_mask_ids(path)
    if ids.dtype == np.uint8:
        return ids.astype(np.uint8, copy=False)
    if int(ids.max(initial=0)) > 255:
        raise DataError(f"{path}: holds id {int(ids.max())}, expected ids up to 255", remedy="map wide ids with 'source' in a classes.yaml")
    return ids.astype(np.uint8)


def read_mask_ids(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Like :func:`read_mask`, but 16-bit masks keep ids up to 65535."""
    data = read_file(path)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            _refuse_lossy(opened, path)
            opened.load()
            return _ids(opened, data, path)
    except _DAMAGE as error:
        raise _damaged(str(path), "mask", error) from error


def read_mask_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a colour-coded mask as (H, W, 3) uint8 RGB; palettes are looked up."""
    try:
        with Image.open(io.BytesIO(read_file(path))) as opened:
            _refuse_lossy(opened, path)
            opened.load()
            return _rgb(opened, str(path))
    except _DAMAGE as error:
        raise _damaged(str(path), "mask", error) from error


def is_jpeg(path: Path) -> bool:
    """Whether the file's first bytes say JPEG, whatever its name says."""
    with path.open("rb") as stream:
        return stream.read(3) == b"\xff\xd8\xff"


def read_file(path: Path) -> bytes:
    """The bytes of a file of the dataset.

    Raises:
        UsageError: there is no such file.
        DataError: it is there but cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", remedy="check the file and its permissions") from error


def _rgb(image: Image.Image, place: str) -> NDArray[np.uint8]:
    if image.mode in _WIDE_GREY:
        # Pillow's own conversion clips 16-bit grey to 255 instead of scaling it; the high byte is what it keeps of 16-bit RGB.
        high = (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)
        return np.repeat(high[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{place}: stores floating-point pixels, expected 8 or 16 bits per channel", remedy="save it as PNG or JPEG")
    out = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):  # as one array Pillow would hold all pixels twice more on the way
        band = image.crop((0, top, image.width, min(top + rows, image.height))) if image.height > rows else image
        out[top : top + rows] = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
    return out


def _ids(image: Image.Image, data: bytes, path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if image.mode in ("L", "P", "1"):
        ids: NDArray[np.uint8] = np.array(image).astype(np.uint8)
        return ids // _small_grey_step(data) if image.mode == "L" else ids
    if image.mode in _WIDE_GREY:
        wide = np.asarray(image)
        if int(wide.min(initial=0)) < 0 or int(wide.max(initial=0)) > 65535:
            raise DataError(f"{path}: ids from {int(wide.min())} to {int(wide.max())}, expected 0 to 65535")
        return wide.astype(np.uint16)
    if image.mode in ("RGB", "RGBA", "LA"):
        colors = np.asarray(image.convert("RGB"))
        if (colors == colors[:, :, :1]).all():
            return np.ascontiguousarray(colors[:, :, 0])
    raise DataError(
        f"{path}: a mask of mode {image.mode} with colours, expected one channel of ids or a palette",
        remedy="name the colours as 'source' in a classes.yaml and use --layout folder",
    )


def _small_grey_step(data: bytes) -> int:
    """Pillow stretches 2-bit and 4-bit grey PNGs to 0..255; this is the factor, so that ids come back as stored."""
    if data[:8] != _PNG_SIGNATURE or len(data) < 26:
        return 1
    depth, color_type = data[24], data[25]  # IHDR, PNG specification 11.2.2
    return {2: 85, 4: 17}.get(depth, 1) if color_type == 0 else 1


def _refuse_lossy(image: Image.Image, path: Path) -> None:
    if image.format in ("JPEG", "MPO"):
        raise DataError(f"{path}: the mask is a JPEG, whose compression changes ids along every edge", remedy="make the masks again as PNG")


def _damaged(place: str, what: str, error: Exception, remedy: str = _SKIP) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        reason = "of no known format"
    elif isinstance(error, MemoryError):
        reason = "it takes more memory than there is"
    else:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
    article = "an" if what == "image" else "a"
    return DataError(f"{place}: not readable as {article} {what} ({reason})", remedy=remedy)
