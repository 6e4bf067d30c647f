"""Raw files: drawn scenes become PNGs that lose nothing, JPEGs with EXIF orientation go through as they lie, and mistakes show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gddctl.core.config.sections import Limits
from gddctl.data.dataset import Sample
from gddctl.data.decode import decode_image, read_image
from gddctl.pipeline.raw_files import answering_from_files, encode_png, lying, raw_bytes
from gddctl.prove.parity import Pair, answering_of, compare
from gddctl.runtime.open import open_runtime
from gddctl.serve.predictor import Predictor


def scene(psp: Any, index: int = 0) -> Sample:
    sample: Sample = psp.val[index]
    return sample


def test_what_is_written_reads_back_pixel_for_pixel(psp: Any) -> None:
    sample = scene(psp)
    assert (decode_image(raw_bytes(psp.val, 0, sample), "x") == sample.image).all()
    data = lying(sample)
    assert (decode_image(data, "x") == sample.image).all()
    with Image.open(io.BytesIO(data)) as opened:  # and it did lie
        assert opened.size == sample.image.shape[:2] and opened.getexif()[0x0112] == 6
    turned = encode_png(np.rot90(sample.image, 2), orientation=3)
    assert (decode_image(turned, "x") == sample.image).all()


class JpegScenes:
    """Drawn scenes as JPEG files, every one with another EXIF orientation."""

    def __init__(self, drawn: Any, folder: Path) -> None:
        self.classes, self._labels, self._paths = drawn.classes, [], []
        turns = {1: 0, 3: 2, 6: 1, 8: 3}  # orientation -> quarter turns counter-clockwise that it undoes
        for index, (orientation, turn) in enumerate(turns.items()):
            sample = drawn[index]
            exif = Image.Exif()
            exif[0x0112] = orientation
            path = folder / f"{index}.jpg"
            Image.fromarray(np.ascontiguousarray(np.rot90(sample.image, turn))).save(path, quality=70, exif=exif)
            self._paths.append(path)
            self._labels.append(sample.label)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self._paths[index]), self._labels[index], self.name(index))

    def name(self, index: int) -> str:
        return self._paths[index].stem

    def files(self, index: int) -> tuple[Path, Path] | None:
        return self._paths[index], self._paths[index]

    def content_sha256(self, index: int) -> str:
        return str(index)


@pytest.mark.parametrize("name", ["fp32_deploy", "int8_deploy"])
def test_jpeg_files_of_every_orientation_are_answered_as_evaluation_answers(psp: Any, tmp_path: Path, name: str) -> None:
    world = JpegScenes(psp.val, tmp_path)
    assert world[2].image.shape == psp.val[2].image.shape and (world[2].image != psp.val[2].image).any()  # lossy, and upright
    logits = getattr(psp, name.removesuffix("_deploy"))
    with open_runtime(logits.path, threads=1) as reference, open_runtime(getattr(psp, name).path, threads=1) as deployed:
        asked: list[bytes] = []
        predictor = Predictor(deployed)
        real = predictor.predict

        def watched(image: Any) -> Any:
            asked.append(image)
            return real(image)

        predictor.predict = watched  # type: ignore[method-assign, assignment]
        answering = {"a": answering_of(reference), "b": answering_from_files(predictor, world)}
        (comparison,) = compare([Pair("a", "b", False)], answering, world, range(4))
        rung = comparison.rung(reference, deployed, Limits(), images=4)
    assert rung.agreement == rung.boundary_agreement == 1.0
    assert [data[:3] == b"\xff\xd8\xff" for data in asked] == [True, False, True, False]  # files as they lie, and turned ones
    assert asked[2] == (tmp_path / "2.jpg").read_bytes()
