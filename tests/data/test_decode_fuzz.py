"""Image bytes as strangers send them: read, or refused as damaged; never anything else, and nothing is left behind in memory."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gddctl.core.errors import DataError
from gddctl.data.decode import decode_image

CASES = int(os.environ.get("GDDCTL_FUZZ_CASES", "600"))
LIMIT = 200_000  # pixels: a mutated header may claim any size
GROWTH = 16 << 20  # bytes: what allocators keep back; a leak of 100 kB per image that is read would be more


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (24, 31, 3), dtype=np.uint8)
    picture = Image.fromarray(small)
    turned = Image.Exif()
    turned[0x0112] = 5
    forms: list[tuple[Image.Image, str, dict[str, object]]] = [
        (picture, "JPEG", {}),
        (picture, "JPEG", {"progressive": True, "exif": turned}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {}),
        (picture.convert("P"), "PNG", {"transparency": 3}),
        (picture.convert("RGBA"), "PNG", {"exif": turned}),
        (Image.fromarray(small[:, :, 0].astype(np.uint16) << 8), "PNG", {}),
        (picture, "BMP", {}),
        (picture.convert("1"), "BMP", {}),
        (picture, "WEBP", {}),
        (picture.convert("RGBA"), "WEBP", {"lossless": True}),
        (picture, "TIFF", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "TIFF", {"compression": "tiff_deflate"}),
        (picture, "TIFF", {"compression": "jpeg"}),
        (picture.convert("L"), "GIF", {}),
        (picture, "PPM", {}),
        (picture, "TGA", {"compression": "tga_rle"}),
        (picture, "JPEG2000", {}),
    ]
    found = []
    for image, form, options in forms:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        found.append(stream.getvalue())
    return found


def mutated(data: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        place = draw.randrange(len(out)) if draw.random() < 0.5 else draw.randrange(min(len(out), 64))
        match draw.randrange(7):
            case 0:
                out[place] = draw.randrange(256)
            case 1:
                out[place] ^= 1 << draw.randrange(8)
            case 2:
                out[place : place + 4] = draw.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\1\0\0\0"))
            case 3:
                del out[place : place + draw.randrange(1, 40)]
            case 4:
                out[place:place] = draw.randbytes(draw.randrange(1, 40))
            case 5:
                out = out[: max(1, place)]
            case _:
                other = draw.choice(others)
                start = draw.randrange(len(other))
                out[place : place + 30] = other[start : start + 30]
        if not out:
            return b"\0"
    return bytes(out)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # Pillow's, about the damage
def test_mutated_files_are_read_or_refused_and_leave_nothing() -> None:
    whole = seeds()
    for data in whole:
        assert decode_image(data, "whole", max_pixels=LIMIT).shape[2] == 3  # the mutants start from what can be read
    number = int(os.environ.get("GDDCTL_FUZZ_SEED", "20261120"))
    draw, read, refused, before = random.Random(number), 0, 0, 0
    for case in range(CASES):
        data = mutated(draw.choice(whole), draw, whole)
        try:
            image = decode_image(data, "mutant", max_pixels=LIMIT)
        except DataError as error:
            refused += 1
            assert str(error).startswith("mutant: ")
        except Exception as error:  # told with the bytes, so that it can be tried again
            pytest.fail(f"case {case} of seed {number}: {type(error).__name__}: {error}\n{data.hex()}")
        else:
            read += 1
            assert image.dtype == np.uint8 and image.shape[2] == 3 and image.shape[0] * image.shape[1] <= LIMIT
        if case == CASES // 3:
            before = resident()
    assert read > CASES // 20 and refused > CASES // 20, (read, refused)  # neither half is empty: the mutants are worth the name
    assert resident() - before < GROWTH
