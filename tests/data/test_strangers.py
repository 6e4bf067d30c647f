"""Files of strangers that are no images but work: refused by name, while everything that cameras and programs write is read."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from gddctl.core.errors import DataError
from gddctl.data.decode import decode_image
from gddctl.data.strangers import Tedious, _Counted

LIMIT = 40_000_000


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


SMALL = Image.new("RGB", (64, 64))
JPEG, PNG, GIF, JP2 = (encoded(SMALL, form) for form in ("JPEG", "PNG", "GIF", "JPEG2000"))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bmp(width: int, height: int, data: bytes, compression: int, bits: int) -> bytes:
    """Windows' bitmap: file header, information header of 40 bytes, palette, data."""
    colours = 1 << bits
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    start = 14 + len(header) + 4 * colours
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + bytes(4 * colours) + data


def tiff(tags: list[tuple[int, int, int, int]], data: bytes = b"", *, big: bool = False, order: str = "<") -> bytes:
    """TIFF 6.0, or BigTIFF: a header, one directory of (tag, type, count, value or offset), data."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(tags))
        return head + b"".join(struct.pack(order + "HHQQ", *tag) for tag in tags) + bytes(8) + data
    head = mark + struct.pack(order + "HLH", 42, 8, len(tags))
    return head + b"".join(struct.pack(order + "HHLL", *tag) for tag in tags) + bytes(4) + data


def strips(count: int, **form: Any) -> bytes:
    """One pixel wide, each row in a strip of its own, all of them at the same place."""
    tags = [(256, 4, 1, 1), (257, 4, 1, count), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1), (278, 4, 1, 1), (279, 4, 1, 1)]
    return tiff(sorted([*tags, (273, 4, count, 200)]), bytes(200 + 4 * count), **form)


TEDIOUS: dict[str, bytes] = {
    "a JPEG with padding": JPEG[:2] + b"\xff" * 1_000_000 + JPEG[2:],
    "a JPEG of comments": JPEG[:2] + b"\xff\xfe\x00\x02" * 100_000 + JPEG[2:],
    "a JPEG of Exif": JPEG[:2] + b"\xff\xe1\x00\x08Exif\0\0" * 60_000 + JPEG[2:],
    "a PNG of empty chunks": PNG[:33] + chunk(b"teSt", b"") * 60_000 + PNG[33:],
    "a PNG of empty pixels": PNG[:33] + chunk(b"IDAT", b"") * 60_000 + PNG[33:],
    "a PNG with a long tail": PNG[:-12] + chunk(b"teSt", b"") * 60_000 + PNG[-12:],
    "a GIF of comments": GIF[:13] + b"!\xfe\x01a\0" * 60_000 + GIF[13:],
    "a GIF of one comment": GIF[:13] + b"!\xfe" + b"\x01a" * 100_000 + b"\0" + GIF[13:],
    "a GIF of nothing": GIF[:13] + bytes(200_000) + GIF[13:],
    "a JPEG 2000 of empty boxes": JP2[:12] + b"\0\0\0\x08free" * 60_000 + JP2[12:],
    "a PPM with a wide header": b"P6" + b" " * 100_000 + b"1 1 255\n\0\0\0",
    "a PPM of comments": b"P6\n" + b"#a\n" * 60_000 + b"1 1 255\n\0\0\0",
    "a PPM of an odd depth": b"P5 1000 100 100\n" + bytes(100_000),
    "a plain bitmap": b"P1 4 1\n0 1 1 0\n",
    "a plain grey map": b"P2 4 1 255\n0 1 2 3\n",
    "a plain pixmap": b"P3 1 1 255\n0 1 2\n",
    "a BMP of ends": bmp(5_000, 1, b"\x01\x00\x00\x00", 1, 8),
    "a BMP with a jump": bmp(100_000, 1, b"\x00\x02\x00\xff\x00\x01", 1, 8),
    "a BMP of 16 colours": bmp(20, 2, b"\x14\x11\x00\x00" * 2, 2, 4),
    "a TIFF that is one strip, again and again": strips(3_000),
    "a TIFF of strips": strips(40_000),
    "a big-endian TIFF of strips": strips(40_000, order=">"),
    "a BigTIFF of strips": strips(40_000, big=True),
    "a TIFF of depths": tiff([(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 100_000, 100)], bytes(200_100)),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", TEDIOUS)
def test_work_that_is_no_image_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="more pieces than an image|is not read here|expected at most 32768") as caught:
        decode_image(TEDIOUS[name], "x", max_pixels=LIMIT)
    assert isinstance(caught.value.__cause__, Tedious)


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def small_idat(data: bytes, size: int) -> bytes:
    """The PNG with its pixels in chunks of ``size`` bytes."""
    at = data.index(b"IDAT") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    pixels = data[at + 8 : at + 8 + length]
    return data[:at] + b"".join(chunk(b"IDAT", pixels[place : place + size]) for place in range(0, length, size)) + data[at + 12 + length :]


HONEST: dict[str, bytes] = {
    "a PNG of chunks of 8 KiB": small_idat(encoded(noise(2000, 2000), "PNG"), 8192),
    "a TIFF of rows": encoded(noise(2000, 90), "TIFF", tiffinfo={278: 1}),
    "a GIF": encoded(noise(700, 900), "GIF"),
    "a JPEG with a long comment": encoded(noise(90, 90), "JPEG", comment=b"a" * 60_000),
    "a BMP": encoded(noise(700, 900), "BMP"),
    "a pixmap": encoded(noise(700, 900), "PPM"),
    "a pixmap of few colours": b"P6 30 20 15\n" + bytes(1800),
    "a JPEG 2000": encoded(noise(300, 300), "JPEG2000"),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_programs_write_is_read(name: str) -> None:
    assert decode_image(HONEST[name], "x", max_pixels=LIMIT).shape[2] == 3


def test_a_files_own_user_reads_what_pillow_reads() -> None:
    assert decode_image(TEDIOUS["a plain pixmap"], "x").tolist() == [[[0, 1, 2]]]


def test_the_same_bytes_are_not_read_over_and_over() -> None:
    stream = _Counted(bytes(1 << 20))
    for _ in range(9):
        stream.seek(0)
        stream.read()
    stream.seek(0)
    with pytest.raises(Tedious):
        stream.read()


def test_a_file_that_takes_its_time_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    plugin, accepts = Image.OPEN["PNG"]

    def slow(stream: IO[bytes], name: str | bytes) -> ImageFile.ImageFile:
        begun.set()
        assert go_on.wait(30)
        return plugin(stream, name)

    monkeypatch.setitem(Image.OPEN, "PNG", (slow, accepts))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(decode_image, PNG, "x", max_pixels=LIMIT)
        try:
            assert begun.wait(30)
            assert pool.submit(decode_image, JPEG, "x", max_pixels=LIMIT).result(5).shape == (64, 64, 3)
        finally:
            go_on.set()
        assert first.result(30).shape == (64, 64, 3)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_an_image_that_takes_all_memory_is_a_bad_image(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", full)
    with pytest.raises(DataError, match=r"photo: not readable as an image \(it takes more memory than there is\)"):
        decode_image(encoded(SMALL, "BMP"), "photo", max_pixels=limit)
