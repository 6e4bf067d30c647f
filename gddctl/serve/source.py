"""Whatever a caller has in hand, as an RGB image; everything else refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import DataError
from gddctl.data.decode import decode_image, from_pillow, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = str | Path | bytes | NDArray[np.uint8] | Image

_WANTED = "a path, the bytes of an image file, a Pillow image, or a uint8 array of shape (H, W, 3) in RGB order"


def to_rgb(image: ImageLike) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8 RGB, EXIF orientation applied for files, their bytes and Pillow images.

    Raises:
        DataError: an array of another dtype or shape, an empty image, or something that is no image.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, bytes):
        return decode_image(image, "the image")
    if isinstance(image, np.ndarray):
        return _checked(image)
    from PIL import Image as pillow

    if isinstance(image, pillow.Image):
        return from_pillow(image, "the Pillow image")
    raise DataError(f"cannot read an image from a {type(image).__name__}", remedy=f"give {_WANTED}")


def _checked(array: NDArray[Any]) -> NDArray[np.uint8]:
    found = f"an array of {array.dtype} and shape {array.shape}"
    if array.ndim == 2:
        raise DataError(f"{found} is grey", remedy="stack it to three channels: numpy.stack([a, a, a], axis=-1)")
    if array.ndim != 3 or array.shape[2] != 3:
        hint = " (channels first: transpose it with a.transpose(1, 2, 0))" if array.ndim == 3 and array.shape[0] == 3 else ""
        raise DataError(f"{found} is not an RGB image{hint}", remedy=f"give {_WANTED}")
    if array.dtype != np.uint8:
        raise DataError(f"{found} is not 8-bit", remedy="scale it to 0..255 and convert it: a.round().astype(numpy.uint8)")
    if 0 in array.shape:
        raise DataError(f"{found} is empty", remedy=f"give {_WANTED}")
    return np.ascontiguousarray(array)
