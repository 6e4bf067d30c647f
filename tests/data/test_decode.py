"""Decoding: every mode that turns up in the wild, and damaged files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gddctl.core.errors import DataError, ImageTooLarge, UsageError
from gddctl.data.decode import decode_image, from_pillow, read_image, read_mask, read_mask_ids, read_mask_rgb

JPEG_STEP = 6  # grey values; quality 100 without chroma subsampling on a smooth picture
CMYK_STEP = 12  # grey values; a round trip through ink and JPEG


def smooth() -> NDArray[np.uint8]:
    y, x = np.mgrid[0:20, 0:32]
    return np.stack([40 + 5 * x, 60 + 6 * y, 200 - 3 * x], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = smooth()
    # How a camera stores the upright picture, from the EXIF specification's table of rows and columns.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", quality=100, subsampling=0, exif=exif))
    read = read_image(path)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() <= JPEG_STEP


def test_grey_alpha_palette_and_bilevel_become_rgb() -> None:
    rgb = smooth()
    grey = rgb[:, :, 0]
    alpha = np.concatenate([rgb, np.full((20, 32, 1), 7, np.uint8)], axis=2)
    assert np.array_equal(decode_image(encoded(Image.fromarray(grey), "PNG"), "x"), np.repeat(grey[:, :, None], 3, 2))
    assert np.array_equal(decode_image(encoded(Image.fromarray(alpha), "PNG"), "x"), rgb)
    few = (rgb // 64) * 64
    palette = Image.fromarray(few).quantize(64)
    assert np.array_equal(decode_image(encoded(palette, "PNG"), "x"), np.asarray(palette.convert("RGB")))
    bilevel = Image.fromarray((grey > 100).astype(np.uint8) * 255).convert("1")
    assert set(np.unique(decode_image(encoded(bilevel, "PNG"), "x"))) == {0, 255}


def test_16_bit_grey_keeps_its_high_byte() -> None:
    wide = np.linspace(0, 65535, 20 * 32).astype(np.uint16).reshape(20, 32)
    for form in ("PNG", "TIFF"):
        read = decode_image(encoded(Image.fromarray(wide), form), "x")
        assert np.array_equal(read[:, :, 1], (wide >> 8).astype(np.uint8)), form


def png(width: int, height: int, depth: int, color_type: int, rows: list[bytes]) -> bytes:
    """A PNG by hand: PNG specification, chunks IHDR, IDAT, IEND."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_16_bit_rgb_keeps_its_high_byte() -> None:
    pixel = struct.pack(">HHH", 0x1234, 0xABCD, 0xFF00)
    assert decode_image(png(2, 1, 16, 2, [pixel * 2]), "x").tolist() == [[[0x12, 0xAB, 0xFF]] * 2]


@pytest.mark.parametrize(("depth", "row", "ids"), [(2, b"\x1b", [0, 1, 2, 3]), (4, b"\x07\xb3", [0, 7, 11, 3]), (1, b"\x50", [0, 1, 0, 1])])
def test_small_grey_pngs_give_the_ids_they_store(depth: int, row: bytes, ids: list[int], tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png(4, 1, depth, 0, [row]))
    assert read_mask(path).tolist() == [ids]


def test_cmyk_jpeg_becomes_rgb() -> None:
    rgb = smooth()
    ink = Image.fromarray(rgb).convert("CMYK")
    read = decode_image(encoded(ink, "JPEG", quality=100), "x")
    assert np.abs(read.astype(int) - rgb).max() <= CMYK_STEP


def test_floating_point_pixels_are_refused() -> None:
    image = Image.fromarray(np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match="scan: stores floating-point pixels"):
        decode_image(encoded(image, "TIFF"), "scan")


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_file_is_named(form: str, kept: float, tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), form)
    path = tmp_path / "cut.img"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=r"cut\.img: not readable as an image .*--skip-bad") as caught:
        read_image(path)
    assert caught.value.exit_code == 5
    path.write_bytes(whole)
    assert read_image(path).shape == (64, 64, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")  # about the damage, which is meant
def test_damaged_bytes_never_end_in_anything_but_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flipped bytes anywhere: read, or refused by name; 300 damaged files."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # a damaged header may claim any size
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    refused = 0
    for form in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"):
        whole = np.frombuffer(encoded(picture, form), np.uint8)
        for _ in range(50):
            broken = whole.copy()
            broken[rng.integers(0, min(200, len(broken)), 4)] = rng.integers(0, 256, 4)
            path = tmp_path / "broken.img"
            path.write_bytes(broken.tobytes())
            try:
                assert read_image(path).dtype == np.uint8
            except DataError as error:
                assert "broken.img" in str(error)
                refused += 1
    assert refused > 50


def bomb(height: int, width: int) -> bytes:
    """A PNG whose header claims a size that nothing behind it fills."""
    whole = png(1, 1, 8, 2, [b"\0\0\0"])
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    return whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:]


def test_too_many_pixels_are_told_from_the_header_before_any_is_decoded() -> None:
    with pytest.raises(ImageTooLarge, match=r"x: 20000 x 20000 = 400000000 pixels, expected at most 1000000; .*--max-pixels") as caught:
        decode_image(bomb(20000, 20000), "x", max_pixels=1_000_000)
    assert (caught.value.width, caught.value.height, caught.value.limit, caught.value.exit_code) == (20000, 20000, 1_000_000, 5)
    with pytest.raises(DataError, match="not readable as an image") as other:  # within the limit: it is decoded, and found to be short
        decode_image(bomb(30, 30), "x", max_pixels=900)
    assert not isinstance(other.value, ImageTooLarge) and "--skip-bad" not in str(other.value)
    with pytest.raises(ImageTooLarge):
        decode_image(bomb(30, 30), "x", max_pixels=899)


def test_a_limit_of_the_callers_replaces_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    whole = encoded(Image.fromarray(smooth()), "PNG")
    with pytest.raises(DataError, match="decompression bomb"):
        decode_image(whole, "x")
    assert decode_image(whole, "x", max_pixels=20 * 32).shape == (20, 32, 3)
    assert Image.MAX_IMAGE_PIXELS == 100  # whoever else uses Pillow in this process keeps the limit


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK", "YCbCr", "1", "LA"])
def test_images_read_in_bands_are_the_same_images(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(smooth()).convert(mode)
    whole = from_pillow(image, "x")
    assert np.array_equal(whole, np.array(image.convert("RGB")))
    monkeypatch.setattr("gddctl.data.decode._BAND", 7 * 32)  # 20 rows: two whole bands and a part of one
    assert np.array_equal(from_pillow(image, "x"), whole)


def test_files_of_strangers_are_read_in_common_formats_only() -> None:
    scribble = encoded(Image.fromarray(smooth()), "EPS")  # Pillow would start Ghostscript
    with pytest.raises(DataError, match="of no known format"):
        decode_image(scribble, "x", max_pixels=10**6)
    for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA"):
        assert decode_image(encoded(Image.fromarray(smooth()), form), "x", max_pixels=640).shape == (20, 32, 3)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_palette_masks_give_indices_not_colours(tmp_path: Path) -> None:
    ids = np.arange(20 * 32, dtype=np.int64).reshape(20, 32) % 21
    mask = Image.fromarray(ids.astype(np.uint8)).convert("P")
    mask.putpalette(list(range(255, -1, -1)) * 3)
    mask.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), ids)
    assert np.array_equal(read_mask_rgb(tmp_path / "mask.png"), np.asarray(mask.convert("RGB")))


def test_16_bit_masks_keep_wide_ids(tmp_path: Path) -> None:
    wide = np.array([[0, 7, 255]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[0, 7, 255]]
    Image.fromarray(wide + 1).save(tmp_path / "mask.png")
    assert read_mask_ids(tmp_path / "mask.png").tolist() == [[1, 8, 256]]
    with pytest.raises(DataError, match="holds id 256"):
        read_mask(tmp_path / "mask.png")


def test_a_grey_mask_saved_as_rgb_is_read_and_a_coloured_one_is_refused(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), grey[:, :, 0])
    grey[0, 0, 2] = 9
    Image.fromarray(grey).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mode RGB with colours.*classes\.yaml"):
        read_mask(tmp_path / "mask.png")


def test_jpeg_masks_are_refused_whatever_their_name(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(Image.fromarray(np.zeros((8, 8), np.uint8)), "JPEG"))
    with pytest.raises(DataError, match="the mask is a JPEG"):
        read_mask(path)
    with pytest.raises(DataError, match="the mask is a JPEG"):
        read_mask_rgb(path)
