"""Image files of strangers, opened: what would keep Pillow busy, or take memory beyond the pixels it claims, is refused on the way in.

Pillow parses headers, and decodes some formats, in Python: a piece of a file costs it a thousand times what a byte costs a decoder in C.
Small files made of millions of pieces are no photographs.
"""

from __future__ import annotations

import io
import struct
from typing import Literal

from PIL import Image, UnidentifiedImageError

# Pillow knows many more formats; of those, some start other programs (EPS) or are hardly ever read.
_COMMON = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_PREFIX = 16  # bytes that Pillow's plugins look at
_PLAIN_PNM = (b"P1", b"P2", b"P3")  # numbers in words: Pillow splits them in Python
_BMP_RLE = (1, 2)  # BI_RLE8, BI_RLE4: decoded in Python, and up to Pillow 12.3 a run may be longer than the image
_BMP_COMPRESSION = 30  # its place: 14 bytes of file header, then 16 of the information header

# Reads of a file: a PNG takes four for each IDAT chunk of 8 KiB, an uncompressed TIFF one for each strip.
_READS, _BYTES_PER_READ = 10_000, 256
_TIMES_READ, _READ_BYTES = 8, 1 << 20  # a decoder that looks twice is fine; one that takes the whole file for each of its tags is not
_TAG_VALUES = 1 << 15  # numbers in one tag of a TIFF: Pillow makes an object of each, and a tile of each strip
_FORMS: dict[bytes, tuple[Literal["little", "big"], int, int, str]] = {  # by TIFF's first bytes: order, place and size of the offset, a tag
    **dict.fromkeys((b"II*\0", b"II\0*"), ("little", 4, 4, "<HHL4x")),
    **dict.fromkeys((b"MM\0*", b"MM*\0"), ("big", 4, 4, ">HHL4x")),
    **dict.fromkeys((b"II+\0",), ("little", 8, 8, "<HHQ8x")),
    **dict.fromkeys((b"MM\0+",), ("big", 8, 8, ">HHQ8x")),
}
_TEXT_TYPES = (1, 2, 6, 7)  # BYTE, ASCII, SBYTE, UNDEFINED: kept as bytes


class Tedious(Exception):
    """A file that takes more work than an image of its size is worth. No OSError: Pillow's plugins swallow those and read on."""


def open_common(data: bytes) -> Image.Image:
    """The image's header, by the first plugin of a common format that takes it; any number of pixels.

    ``Image.open`` would hold it to a limit on pixels that is one for the whole process.

    Raises:
        Tedious: see there; also later, when its pixels are loaded.
        UnidentifiedImageError: of no such format.
        Exception: what Pillow raises on damage.
    """
    if data[:2] in _PLAIN_PNM:
        raise Tedious("a PNM of numbers in words, which is not read here")
    if data[:2] == b"BM" and int.from_bytes(data[_BMP_COMPRESSION : _BMP_COMPRESSION + 4], "little") in _BMP_RLE:
        raise Tedious("a BMP with run-length compression, which is not read here")
    _check_tags(data)
    Image.init()
    stream, prefix = _Counted(data), data[:_PREFIX]
    for name in _COMMON:
        if name not in Image.OPEN:
            continue
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(prefix) is not True:
            continue
        stream.seek(0)
        try:
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # so Pillow's plugins say that it is not theirs
            continue
    raise UnidentifiedImageError


class _Counted(io.BytesIO):
    """A file in memory that is read in so many pieces, and no more."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._length = len(data)
        self._reads_left = _READS + len(data) // _BYTES_PER_READ
        self._bytes_left = _READ_BYTES + _TIMES_READ * len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """As ever.

        Raises:
            Tedious: too many pieces, or the same ones too often.
        """
        found = super().read(size)
        self._reads_left -= 1
        self._bytes_left -= len(found)
        if self._reads_left < 0 or self._bytes_left < 0:
            raise Tedious(f"made of more pieces than an image of {self._length} bytes has use for")
        return found


def _check_tags(data: bytes) -> None:
    """Refuse a TIFF with a tag of more numbers than strips or colours can be."""
    found = _FORMS.get(data[:4])
    if found is None:
        return
    order, offset, number, layout = found
    first = int.from_bytes(data[offset : offset + number], order)
    width = 8 if number == 8 else 2
    start, entry = first + width, struct.Struct(layout)
    entries = int.from_bytes(data[first:start], order)
    for index in range(min(entries, _READS, max(0, len(data) - start) // entry.size)):
        tag, form, count = entry.unpack_from(data, start + index * entry.size)
        if count > _TAG_VALUES and form not in _TEXT_TYPES:
            raise Tedious(f"a TIFF whose tag {tag} claims {count} numbers, expected at most {_TAG_VALUES}")
