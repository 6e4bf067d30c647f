"""POST /predict: every kind of image in, every kind of answer out; what is no image, or too much of one, refused."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import gddctl
from tests.conftest import Exported
from tests.serve.http.conftest import DEPLOY, LOGITS, Server

PATH = f"/predict/{DEPLOY}"
GROWTH_MIB = 60  # what the allocators of Pillow, OpenCV and ONNX Runtime may keep; a leak of every body would be three times that


@pytest.fixture(scope="module")
def scene(psp: Exported) -> NDArray[np.uint8]:
    """Larger than the network's input, of another shape."""
    return np.ascontiguousarray(np.repeat(psp.val[1].image, 2, axis=0)[:, :77])


@pytest.fixture(scope="module")
def predictor(psp: Exported) -> Any:
    return gddctl.load(psp.int8_deploy.path, threads=1)


def encoded(image: Image.Image | NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def ids(answer: Any) -> NDArray[np.uint8]:
    assert answer.status == 200, answer.body
    return np.asarray(Image.open(io.BytesIO(answer.body)))


def test_answers_in_every_form(server: Server, predictor: Any, scene: NDArray[np.uint8]) -> None:
    body, expected = encoded(scene), predictor.predict(scene)
    height, width = scene.shape[:2]
    assert (ids(server.post(f"{PATH}?output=ids", body)) == expected.mask).all()
    colors = server.post(f"{PATH}?output=colors", body)
    assert colors.headers["content-type"] == "image/png"
    assert (np.asarray(Image.open(io.BytesIO(colors.body)).convert("RGB")) == expected.colours()).all()
    overlay = server.post(f"{PATH}?output=overlay&opacity=0.5", body)
    assert overlay.headers["content-type"] == "image/jpeg"
    found = np.asarray(Image.open(io.BytesIO(overlay.body))).astype(int)
    assert np.abs(found - expected.overlay(opacity=0.5)).mean() < 10  # a JPEG of flat colours: its loss lies along their edges
    raw = server.post(f"{PATH}?output=raw", body)
    assert raw.headers["x-mask-shape"] == f"{height},{width}"
    assert gzip.decompress(raw.body) == expected.mask.tobytes()
    told = server.post(f"{PATH}?output=json", body).json
    assert (told["width"], told["height"], told["model"]) == (width, height, DEPLOY)
    assert told["shares"] == pytest.approx(expected.shares()) and sum(told["shares"].values()) == pytest.approx(1)
    assert [tuple(each["color"]) for each in told["classes"]] == list(expected.classes.palette)


def test_accept_decides_where_the_query_does_not(server: Server, scene: NDArray[np.uint8]) -> None:
    body = encoded(scene)
    for accept, kind in {
        "image/png": "image/png",
        "image/jpeg, */*": "image/jpeg",
        "*/*": "application/json",
        "": "application/json",
    }.items():
        assert server.post(PATH, body, Accept=accept).headers["content-type"] == kind
    assert server.post(f"{PATH}?output=ids", body, Accept="application/json").headers["content-type"] == "image/png"


def test_the_logits_graph_answers_too(server: Server, psp: Exported, scene: NDArray[np.uint8]) -> None:
    expected = gddctl.load(psp.fp32.path, threads=1).predict(scene).mask
    assert (ids(server.post(f"/predict/{LOGITS}?output=ids", encoded(scene))) == expected).all()


def test_a_model_must_be_named_where_there_are_several(server: Server, scene: NDArray[np.uint8]) -> None:
    assert "name one of" in server.post("/predict", encoded(scene)).error
    assert (ids(server.post(f"/predict?model={DEPLOY}&output=ids", encoded(scene))) >= 0).all()
    assert server.post("/predict/nobody", encoded(scene)).status == 404
    assert server.post(f"{PATH}?output=film", encoded(scene)).status == 422
    assert server.post(f"{PATH}?opacity=7", encoded(scene)).status == 422


def test_images_of_every_kind(server: Server, predictor: Any, scene: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(scene)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray((scene[:, :, 0].astype(np.uint16) << 8) + 77)
    bodies = {
        "jpeg": encoded(scene, "JPEG"),
        "webp": encoded(scene, "WEBP", lossless=True),
        "bmp": encoded(scene, "BMP"),
        "alpha": encoded(picture.convert("RGBA")),
        "cmyk": encoded(picture.convert("CMYK"), "TIFF"),
        "grey of 16 bits": encoded(deep),
        "palette": encoded(picture.convert("P")),
        "turned by EXIF": encoded(np.ascontiguousarray(np.rot90(scene)), exif=turned),
        "one pixel": encoded(scene[:1, :1]),
        "one row": encoded(scene[:1]),
    }
    for name, body in bodies.items():
        assert (ids(server.post(f"{PATH}?output=ids", body)) == predictor.predict(body).mask).all(), name
    assert ids(server.post(f"{PATH}?output=ids", bodies["turned by EXIF"])).shape == scene.shape[:2]
    assert ids(server.post(f"{PATH}?output=overlay", bodies["one pixel"])).shape == (1, 1, 3)


def form(*parts: tuple[str, bytes], boundary: str = "xyz") -> tuple[bytes, str]:
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def test_an_upload_is_the_first_file_of_a_form(server: Server, predictor: Any, scene: NDArray[np.uint8]) -> None:
    body, kind = form(
        ('name="note"', b"hello"), ('name="image"; filename="a.png"', encoded(scene)), ('name="x"; filename="b.png"', b"not this one")
    )
    assert (ids(server.post(f"{PATH}?output=ids", body, Content_Type=kind)) == predictor.predict(scene).mask).all()
    for broken, words in {
        form(('name="note"', b"hello")): "no file",
        (body, "multipart/form-data"): "no boundary",
        (body, "multipart/form-data; boundary=other"): "the form",
        (body[:-400], kind): "no file",
        (b"", kind): "the form",
        (b"", "image/png"): "empty",
        form(*[('name="note"', b"x")] * 100): "64 parts",
    }.items():
        answer = server.post(PATH, broken[0], Content_Type=broken[1])
        assert answer.status == 400 and words in answer.error, words


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels to show for it: 57 bytes of header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )


def test_an_image_of_too_many_pixels_is_told_by_its_header(server: Server) -> None:
    before = server.resident_mib()
    real = encoded(Image.new("1", (20_000, 20_000)))  # 400 million pixels in 50 kB
    for body in (real, png_of_size(20_000, 20_000), png_of_size(1 << 30, 1 << 30)):
        answer = server.post(PATH, body)
        assert answer.status == 413 and "--max-pixels" in answer.error and len(body) < 100_000
    assert server.resident_mib() - before < GROWTH_MIB  # decoded, the first alone would be 400 MB


def test_what_is_no_image_is_a_400(server: Server, scene: NDArray[np.uint8]) -> None:
    png, jpeg = encoded(scene), encoded(scene, "JPEG")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"  # Pillow would start Ghostscript for it
    for body in (
        b"hello",
        png[:60],
        png[: len(png) // 2],
        jpeg[:100],
        b"\x00" * 4096,
        eps,
        encoded(Image.new("F", (8, 8)), "TIFF"),
        png_of_size(8, 8),
    ):
        answer = server.post(PATH, body)
        assert answer.status == 400 and "0x" not in answer.error and "BytesIO" not in answer.error, answer.body


def test_a_jpeg_of_a_thousand_scans_is_refused(server: Server, scene: NDArray[np.uint8]) -> None:
    jpeg = encoded(scene, "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    assert server.post(PATH, jpeg).status == 200
    answer = server.post(PATH, jpeg[:last] + jpeg[last:-2] * 1000 + jpeg[-2:])
    assert answer.status == 400 and "scans" in answer.error


def test_damaged_images_never_bring_a_500_and_leave_nothing_behind(server: Server, scene: NDArray[np.uint8]) -> None:
    rng = random.Random(3)
    sources = [
        encoded(scene),
        encoded(scene, "JPEG"),
        encoded(scene, "GIF"),
        encoded(scene, "TIFF"),
        encoded(scene, "WEBP"),
        encoded(scene, "BMP"),
    ]
    statuses = set()
    for turn in range(240):
        if turn == 60:
            before = server.resident_mib()  # by now every decoder has been in use
        body = bytearray(rng.choice(sources))
        for _ in range(rng.randint(1, 12)):
            place = rng.randrange(len(body)) if rng.random() < 0.5 else rng.randrange(min(120, len(body)))
            match rng.randrange(3):
                case 0:
                    body[place] = rng.randrange(256)
                case 1:
                    del body[place : place + rng.randint(1, 40)]
                case _:
                    body[place:place] = rng.randbytes(rng.randint(1, 40))
        statuses.add(server.post(f"{PATH}?output={rng.choice(['ids', 'overlay', 'json', 'raw'])}", bytes(body)).status)
    assert statuses <= {200, 400, 413} and 400 in statuses, statuses
    assert server.resident_mib() - before < GROWTH_MIB
    assert server.metric("gddctl_held_bytes") == 0 and server.metric("gddctl_queue_depth") == 0


def test_images_that_are_work_are_refused_and_hold_up_nothing(server: Server, scene: NDArray[np.uint8]) -> None:
    jpeg, before = encoded(scene, "JPEG"), server.resident_mib()
    padded = jpeg[:2] + b"\xff" * 900_000 + jpeg[2:]  # less than a MiB: it may come compressed
    plain = b"P2 600 500 255\n" + b"0 " * 300_000
    for body in (padded, plain):
        for headers in ({}, {"Content_Encoding": "gzip"}):
            answer = server.post(PATH, gzip.compress(body) if headers else body, **headers)
            assert answer.status == 400 and ("more pieces" in answer.error or "PNM" in answer.error), answer.error
    jump = encoded(Image.new("P", (100_000, 1)), "BMP")
    jump = jump[:30] + b"\1\0\0\0" + jump[34 : 54 + 1024] + b"\x00\x02\x00\xff\x00\x01"  # a run-length BMP that skips 255 rows
    answer = server.post(PATH, jump)
    assert answer.status == 400 and "run-length" in answer.error
    assert server.resident_mib() - before < GROWTH_MIB


def test_a_compressed_image_that_grows_beyond_images_is_a_413(server: Server, scene: NDArray[np.uint8]) -> None:
    raw = encoded(Image.new("RGB", (1000, 1000)), "BMP")  # 3 MB that compress a thousandfold
    answer = server.post(PATH, gzip.compress(raw), Content_Encoding="gzip")
    assert answer.status == 413 and "20 times" in answer.error
    assert server.post(PATH, raw).status == 200
    for image in (encoded(scene), encoded(scene, "BMP")):
        assert server.post(PATH, gzip.compress(image), Content_Encoding="gzip").status == 200
