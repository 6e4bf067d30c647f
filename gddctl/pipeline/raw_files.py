"""Asking a deployed graph as its users will: with an image file's bytes, through the server's own decoding and preprocessing."""

from __future__ import annotations

import io
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gddctl.core.errors import ArtifactError
from gddctl.data.dataset import Sample, SegDataset
from gddctl.data.decode import read_file
from gddctl.data.preprocess import Geometry
from gddctl.prove.comparison import Answer
from gddctl.prove.parity import Answering
from gddctl.serve.predictor import Predictor

_ORIENTATION = 0x0112  # EXIF 2.32, tag "Orientation"
_LIES_ON_ITS_LEFT = 6  # to be turned a quarter clockwise to stand upright
_FAST = 1  # PNG compression level: these bytes are read once


def answering_from_files(predictor: Predictor, dataset: SegDataset) -> Answering:
    """A model asked with raw files: the dataset's own bytes, and every second image lying on its side with a tag that says so."""
    asked = count()  # not the index: images spread evenly over a split may all be even

    def answer(index: int, sample: Sample) -> Answer:
        data = lying(sample) if next(asked) % 2 else raw_bytes(dataset, index, sample)
        mask = predictor.predict(data).mask
        size = (mask.shape[0], mask.shape[1])
        if size != sample.image.shape[:2]:
            raise ArtifactError(
                f"{sample.name}: from its file the server answers with a mask of {size[0]}x{size[1]}, "
                f"the image is {sample.image.shape[0]}x{sample.image.shape[1]}",
                remedy="decoding or orientation differ between serving and evaluation",
            )
        return Answer(mask, Geometry(size, size, size))

    return answer


def raw_bytes(dataset: SegDataset, index: int, sample: Sample) -> bytes:
    """The dataset's own JPEG or PNG of ``sample``; drawn scenes have no file and are written as PNG, which loses nothing."""
    files = dataset.files(index)
    return read_file(files[0]) if files is not None else encode_png(sample.image)


def lying(sample: Sample) -> bytes:
    """A PNG of ``sample`` lying on its left side, as cameras write it, with the EXIF orientation that turns it upright."""
    return encode_png(np.rot90(sample.image), orientation=_LIES_ON_ITS_LEFT)


def encode_png(image: NDArray[np.uint8], *, orientation: int | None = None) -> bytes:
    """A PNG file of an (H, W, 3) uint8 RGB image, with an EXIF orientation (1 to 8) where one is given."""
    exif = Image.Exif()
    if orientation is not None:
        exif[_ORIENTATION] = orientation
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "PNG", compress_level=_FAST, exif=exif)
    return stream.getvalue()
