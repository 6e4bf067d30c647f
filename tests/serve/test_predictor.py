"""The predictor: any source, any size, upright, without torch, and refusals in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gddctl
from gddctl.core.errors import ArtifactError, DataError, UsageError
from gddctl.serve.predictor import Predictor, load


@pytest.fixture(scope="module")
def predictor(psp: Any) -> Predictor:
    return load(psp.fp32.path, threads=1)


@pytest.fixture(scope="module")
def scene(psp: Any) -> Any:
    """A drawn scene, wider than the network's input."""
    image = psp.val[1].image
    return np.ascontiguousarray(np.repeat(np.repeat(image, 2, axis=0), 3, axis=1))


def test_every_source_of_the_same_pixels_gets_the_same_answer(predictor: Predictor, scene: Any, tmp_path: Path) -> None:
    Image.fromarray(scene).save(tmp_path / "scene.png")
    Image.fromarray(scene).save(tmp_path / "scene.jpg", quality=98)
    expected = predictor.predict(scene)
    assert expected.mask.shape == scene.shape[:2] and expected.mask.dtype == np.uint8
    for source in (tmp_path / "scene.png", str(tmp_path / "scene.png"), Image.fromarray(scene), np.asfortranarray(scene)):
        found = predictor.predict(source)
        assert (found.mask == expected.mask).all() and (found.image == scene).all()
    with Image.open(tmp_path / "scene.jpg") as lossy:
        assert (predictor.predict(tmp_path / "scene.jpg").mask == predictor.predict(np.asarray(lossy)).mask).all()


def test_exif_orientation_is_kept(predictor: Predictor, scene: Any, tmp_path: Path) -> None:
    sideways = Image.fromarray(np.ascontiguousarray(np.rot90(scene)))  # stored turned left; the tag says: turn right to view
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "sideways.png", exif=exif)
    upright = predictor.predict(scene)
    assert (predictor.predict(tmp_path / "sideways.png").mask == upright.mask).all()
    with Image.open(tmp_path / "sideways.png") as opened:
        assert (predictor.predict(opened).mask == upright.mask).all()
    assert predictor.predict(np.asarray(sideways)).mask.shape == scene.shape[1::-1]  # pixels alone have no orientation


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_pillow_modes_are_converted_as_files_are(predictor: Predictor, scene: Any, mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(scene).convert(mode)
    path = tmp_path / ("scene.tif" if mode == "CMYK" else "scene.png")
    image.save(path)
    assert (predictor.predict(image).mask == predictor.predict(path).mask).all()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((8, 8), np.uint8), "grey"),
        (np.zeros((8, 8, 3), np.float32), "not 8-bit"),
        (np.zeros((8, 8, 3), np.uint16), "not 8-bit"),
        (np.zeros((8, 8, 4), np.uint8), "not an RGB image"),
        (np.zeros((3, 8, 8), np.uint8), "transpose"),
        (np.zeros((1, 8, 8, 3), np.uint8), "not an RGB image"),
        (np.zeros((0, 8, 3), np.uint8), "empty"),
        (Image.new("F", (8, 8)), "floating-point"),
        (b"bytes", "not readable as an image"),
        (None, "from a NoneType"),
    ],
)
def test_what_is_no_rgb_image_is_refused_in_words(predictor: Predictor, source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        predictor.predict(source)
    assert caught.value.remedy


def test_broken_and_missing_files_are_named(predictor: Predictor, scene: Any, tmp_path: Path) -> None:
    path = tmp_path / "scene.jpg"
    Image.fromarray(scene).save(path)
    path.write_bytes(path.read_bytes()[:-2000])  # past its header, so that Pillow opens it and fails later
    with pytest.raises(DataError, match=r"scene\.jpg"):
        predictor.predict(path)
    with Image.open(path) as opened, pytest.raises(DataError, match="Pillow image"):
        predictor.predict(opened)
    with pytest.raises(UsageError, match="no such file"):
        predictor.predict(tmp_path / "gone.png")


def test_shares_colours_and_overlay_read_the_mask(predictor: Predictor, scene: Any) -> None:
    prediction = predictor.predict(scene)
    shares = prediction.shares()
    assert sum(shares.values()) == pytest.approx(1.0) and list(shares.values()) == sorted(shares.values(), reverse=True)
    for name, share in shares.items():
        assert share == pytest.approx((prediction.mask == prediction.classes.names.index(name)).mean())
    assert prediction.colours()[5, 7].tolist() == list(prediction.classes.palette[prediction.mask[5, 7]])
    assert prediction.overlay().shape == scene.shape and (prediction.overlay(opacity=0.0) == scene).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (7, 5), (333, 2)])
def test_odd_sizes_come_back_at_their_size(predictor: Predictor, size: tuple[int, int]) -> None:
    assert predictor.predict(np.zeros((*size, 3), np.uint8)).mask.shape == size


def test_every_form_of_a_student_can_be_loaded(psp: Any, scene: Any) -> None:
    masks = []
    for path in (psp.bundle, psp.fp32.path, psp.fp32_deploy.path, psp.int8.path, psp.int8_deploy.path):
        with gddctl.load(path, threads=1) as opened:
            prediction = opened.predict(scene)
            masks.append(prediction.mask)
            assert prediction.classes == opened.info.classes
    assert (masks[0] == masks[1]).mean() > 0.999


def test_what_is_no_model_is_refused(psp: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path / "gone.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(psp.fp32.path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"bad\.onnx"):
        load(bad)


def test_an_exported_file_is_served_without_torch(psp: Any) -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'torchvision', 'timm', 'onnx', 'albumentations', 'matplotlib'):\n"
        "            raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import numpy, gddctl\n"
        "model = gddctl.load(sys.argv[1], threads=1)\n"
        "print(model.predict(numpy.zeros((30, 40, 3), numpy.uint8)).mask.shape)\n"
        "try:\n"
        "    gddctl.load(sys.argv[2])\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(psp.fp32_deploy.path), str(psp.bundle)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "(30, 40)"
    assert done.stdout.splitlines()[1] in ("EnvironmentMissing", "ImportError")  # the hook is awake: a bundle needs torch
