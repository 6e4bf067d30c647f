"""What is written: the same masks as the Python API's, upright, at the image's size, in each of the four forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.errors import DataError, UsageError
from gddctl.data.decode import read_image, read_mask
from gddctl.prove.overlay import blend
from gddctl.serve.files.inputs import Piped, find_inputs
from gddctl.serve.files.kinds import KINDS, encode, overlaid, parse_kinds, shares
from gddctl.serve.files.predict import predict_to
from gddctl.serve.files.settings import PredictSettings
from gddctl.serve.predictor import Predictor, load
from tests.serve.files.conftest import Counting, Told, files_in, read_ids

JPEG_NOISE = 6.0  # grey values, mean over an overlay: quality 92 with halved colours on pictures of sharp edges


@pytest.fixture(scope="module")
def api(psp: Any) -> Predictor:
    return load(psp.fp32.path, threads=1)


def test_every_kind_of_every_image_lies_where_its_name_says(
    pictures: Path, predict: Callable[..., Any], tmp_path: Path, api: Predictor
) -> None:
    report = predict(pictures, output="overlay,colors,ids,json")
    assert bool(report) and (report.images, report.skipped, report.frames) == (6, 0, 0)
    out = tmp_path / "out"
    stems = ["a", "b", "c", "sub/d", "sub/e", "sub/f"]
    suffixes = {"overlay": ".jpg", "colors": ".png", "ids": ".png", "json": ".json"}
    assert files_in(out) == sorted(f"{kind}/{stem}{suffixes[kind]}" for kind in KINDS for stem in stems)
    for source in sorted(path for path in pictures.rglob("*") if path.is_file()):
        stem = str(source.relative_to(pictures).with_suffix(""))
        expected = api.predict(source)
        assert np.array_equal(read_mask(out / "ids" / f"{stem}.png"), expected.mask)
        assert np.array_equal(read_image(out / "colors" / f"{stem}.png"), expected.colours())
        overlay = read_image(out / "overlay" / f"{stem}.jpg")
        assert overlay.shape == expected.image.shape
        assert np.abs(overlay.astype(float) - expected.overlay()).mean() < JPEG_NOISE
        line = json.loads((out / "json" / f"{stem}.json").read_text())
        assert line["image"] == str(source) and line["name"] == stem
        assert (line["height"], line["width"]) == expected.mask.shape
        assert line["shares"] == pytest.approx(expected.shares()) and list(line["shares"]) == list(expected.shares())


def test_an_overlay_is_not_just_the_image(pictures: Path, predict: Callable[..., Any], tmp_path: Path) -> None:
    predict(pictures, output="overlay")
    overlay = read_image(tmp_path / "out" / "overlay" / "b.jpg").astype(float)
    assert np.abs(overlay - read_image(pictures / "b.png")).mean() > 2 * JPEG_NOISE


def test_raw_ids_are_the_same_to_every_reader(pictures: Path, predict: Callable[..., Any], tmp_path: Path) -> None:
    predict(pictures / "b.png")
    path = tmp_path / "out" / "ids" / "b.png"
    with Image.open(path) as image:
        assert image.mode == "L"
    for way in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_GRAYSCALE):
        found = cv2.imread(str(path), way)
        assert found is not None and np.array_equal(found, read_ids(path))


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_batches_change_no_mask(batch: int, pictures: Path, predict: Callable[..., Any], tmp_path: Path, api: Predictor) -> None:
    predict(pictures, batch=batch)
    agreement = [(read_ids(tmp_path / "out/ids" / f"{stem}.png") == api.predict(pictures / name).mask).mean()
                 for stem, name in (("a", "a.jpg"), ("sub/f", "sub/f.png"))]  # fmt: skip
    assert min(agreement) > 0.999  # a batch may sum in another order


def test_through_a_window_as_the_api_does(pictures: Path, predict: Callable[..., Any], tmp_path: Path, api: Predictor) -> None:
    big = Image.open(pictures / "b.png").resize((300, 210))
    big.save(pictures / "big.png")
    predict(pictures / "big.png", window=True)
    assert np.array_equal(read_ids(tmp_path / "out/ids/big.png"), api.predict(pictures / "big.png", window=True).mask)
    assert not np.array_equal(read_ids(tmp_path / "out/ids/big.png"), api.predict(pictures / "big.png").mask)


def oddities(folder: Path) -> dict[str, tuple[int, int]]:
    """Images as they turn up: file name -> (height, width) of the upright picture."""
    folder.mkdir()
    y, x = np.mgrid[0:40, 0:60]
    rgb = np.stack([4 * x, 6 * y, 2 * (x + y)], -1).astype(np.uint8)
    picture = Image.fromarray(rgb)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=turned)
    Image.fromarray(rgb[:, :, 0].astype(np.uint16) << 8).save(folder / "grey16.png")
    cv2.imwrite(str(folder / "rgb16.png"), rgb.astype(np.uint16) << 8)
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.convert("LA").save(folder / "la.png")
    picture.convert("P").save(folder / "palette.gif")
    picture.convert("1").save(folder / "bilevel.tif")
    Image.fromarray(rgb[:1, :1]).save(folder / "one.png")
    Image.fromarray(rgb[:1]).save(folder / "row.png")
    Image.fromarray(rgb[:, :1]).save(folder / "column.png")
    picture.save(folder / "PNG_called.jpg", "PNG")
    upright = {path.name: (40, 60) for path in folder.iterdir()}
    return {**upright, "turned.jpg": (60, 40), "one.png": (1, 1), "row.png": (1, 60), "column.png": (40, 1)}


@pytest.mark.parametrize("window", [False, True])
def test_odd_images_come_back_upright_at_their_size(window: bool, predict: Callable[..., Any], tmp_path: Path) -> None:
    sizes = oddities(tmp_path / "odd")
    report = predict(*(tmp_path / "odd" / name for name in sizes), output="overlay,colors,ids,json", window=window)
    assert report.failures == () and report.images == len(sizes) == 12
    for name, size in sizes.items():
        stem = Path(name).stem
        assert read_ids(tmp_path / "out/ids" / f"{stem}.png").shape == size, name
        assert read_image(tmp_path / "out/overlay" / f"{stem}.jpg").shape[:2] == size, name


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(pictures: Path, predict: Callable[..., Any], tmp_path: Path) -> None:
    (pictures / "text.png").write_text("no image")
    (pictures / "cut.jpg").write_bytes((pictures / "a.jpg").read_bytes()[:-400])
    (pictures / "empty.png").touch()
    Image.new("F", (8, 8)).save(pictures / "float.tif")
    told = Told()
    report = predict(pictures, watcher=told)
    assert not report and report.images == 6
    assert sorted(Path(failure.input).name for failure in report.failures) == ["cut.jpg", "empty.png", "float.tif", "text.png"]
    assert all(failure.input in failure.error for failure in report.failures)
    assert sum(note.startswith("warning: ") for note in told.notes) == 4
    assert told.begun == [("predict", 10)] and told.ticks == 10 and told.ended == 1
    assert len(files_in(tmp_path / "out")) == 6
    with pytest.raises(DataError, match=r"cut\.jpg"):
        predict(pictures, fail_fast=True)


def test_a_file_that_vanishes_after_the_listing_is_one_that_cannot_be_read(
    pictures: Path, predict: Callable[..., Any], counting: Counting
) -> None:
    counting.before = lambda: (pictures / "sub" / "f.png").unlink(missing_ok=True)
    for index in range(40):  # so many that the last is not read ahead of the first run
        Image.new("RGB", (20, 20)).save(pictures / f"n{index}.png")
    report = predict(pictures)
    assert [Path(failure.input).name for failure in report.failures] == ["f.png"] and "no such file" in report.failures[0].error


def test_too_many_pixels_are_refused_one_image_at_a_time(pictures: Path, predict: Callable[..., Any], tmp_path: Path) -> None:
    Image.new("1", (20000, 20000)).save(tmp_path / "huge.png")  # 50 kB on the disk
    report = predict(tmp_path / "huge.png", pictures / "a.jpg")
    assert report.images == 1
    assert "20000 x 20000 = 400000000 pixels, expected at most 100000000" in report.failures[0].error
    assert "--max-pixels" in report.failures[0].error
    assert predict(pictures / "b.png", max_pixels=100).failures[0].error.count("expected at most 100;") == 1


def test_images_larger_than_the_room_do_not_block_each_other(
    predict: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gddctl.serve.files.stills._AT_ONCE", 1000)  # each image is larger than that, bad ones stand between them
    (tmp_path / "in").mkdir()
    for index in range(24):
        path = tmp_path / "in" / f"{index:02d}.png"
        path.write_text("bad") if index % 5 == 2 else Image.new("RGB", (40 + index, 50)).save(path)
    for batch, output in ((1, "ids"), (7, "json")):
        report = predict(tmp_path / "in", batch=batch, output=output)
        assert (report.images, len(report.failures)) == (19, 5)


def test_an_overlay_no_jpeg_can_hold_is_refused_in_words(predict: Callable[..., Any], tmp_path: Path) -> None:
    Image.new("RGB", (66000, 2)).save(tmp_path / "wide.png")
    assert "at most 65500 a side; ask for --output colors" in predict(tmp_path / "wide.png", output="overlay").failures[0].error
    assert predict(tmp_path / "wide.png", output="colors,ids").images == 1


def test_kinds_are_names() -> None:
    assert parse_kinds(["ids, overlay", "ids"]) == ("overlay", "ids")
    for wrong in (["idz"], [""], ["ids,"]):
        with pytest.raises(UsageError, match="expected overlay, colors, ids, json"):
            parse_kinds(wrong)


def test_large_masks_are_counted_and_blended_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = ClassTable(classes=tuple(SegClass(name=f"c{index}", color=(index, 2 * index, 255 - index)) for index in range(5)))
    rng = np.random.default_rng(0)
    mask, image = rng.integers(0, 5, (97, 31), dtype=np.uint8), rng.integers(0, 256, (97, 31, 3), dtype=np.uint8)
    monkeypatch.setattr("gddctl.serve.files.kinds._BAND", 31 * 10)
    assert np.array_equal(overlaid(image, mask, classes, 0.4), blend(image, mask, classes.palette, opacity=0.4))
    assert shares(mask, classes) == pytest.approx({f"c{index}": float((mask == index).mean()) for index in range(5)})
    assert set(shares(mask % 2, classes)) == {"c0", "c1"}


def test_images_that_would_take_all_memory_are_bad_images_and_the_others_go_on(
    pictures: Path, predict: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_prepare = ImageFile.ImageFile.load_prepare

    def full(self: ImageFile.ImageFile) -> None:
        if self.size == (33, 44):
            raise MemoryError
        load_prepare(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", full)
    Image.new("RGB", (33, 44)).save(pictures / "huge.bmp")
    Image.new("P", (9, 9)).save(pictures / "jump.bmp")
    jump = (pictures / "jump.bmp").read_bytes()
    (pictures / "jump.bmp").write_bytes(jump[:30] + b"\1" + jump[31:])  # run-length compression
    report = predict(pictures)
    assert report.images == 6
    huge, leap = sorted((failure.error for failure in report.failures), key=lambda error: "run-length" in error)
    assert "huge.bmp" in huge and "memory" in huge and "jump.bmp" in leap and "run-length" in leap


def test_results_without_a_folder(pictures: Path, counting: Counting, api: Predictor) -> None:
    def to(items: Any, output: str) -> list[bytes]:
        written: list[bytes] = []
        report = predict_to(written.append, counting, items, PredictSettings(kinds=parse_kinds([output])), Told())  # type: ignore[arg-type]
        assert len(written) == report.images
        return written

    (png,) = to((Piped("stdin", (pictures / "b.png").read_bytes()),), "ids")
    found = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None and np.array_equal(found, api.predict(pictures / "b.png").mask)
    lines = to(find_inputs([str(pictures)], out=None), "json")
    assert [json.loads(line)["name"] for line in lines] == ["a", "b", "c", "sub/d", "sub/e", "sub/f"]
    for items, output in ((find_inputs([str(pictures)], out=None), "ids"), (find_inputs([str(pictures / "a.jpg")], out=None), "ids,json")):
        with pytest.raises(UsageError, match="one kind of one image"):
            to(items, output)


def test_encode_without_classes_beyond_the_palette() -> None:
    """Colours are read back as the palette's, for as many classes as an id can name."""
    classes = ClassTable(classes=tuple(SegClass(name=f"c{index}", color=(index, 255 - index, 7)) for index in range(255)))
    mask = np.arange(255, dtype=np.uint8).reshape(15, 17)
    found = cv2.imdecode(np.frombuffer(encode("colors", mask, None, classes, {}, opacity=0.5), np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    assert np.array_equal(found[:, :, ::-1].reshape(-1, 3), np.array(classes.palette))
