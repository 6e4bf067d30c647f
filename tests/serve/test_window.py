"""The sliding window in bands: bit for bit evaluation's for logits, one owner per pixel for ids."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import ArtifactError
from gddctl.prove.views import Views, mask_by_views
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Runtime
from gddctl.serve.window import owned, windowed_mask
from tests.conftest import SIZE

SIZES = [SIZE, (1, 1), (SIZE[0], 200), (150, SIZE[1]), (200, 230), (65, 97), (64, 300)]


@pytest.fixture(scope="module")
def logits(psp: Any) -> Runtime:
    return open_runtime(psp.fp32.path, threads=1)


@pytest.fixture(scope="module")
def deploy(psp: Any) -> Runtime:
    return open_runtime(psp.fp32_deploy.path, threads=1)


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 4])
def test_logits_through_bands_are_those_of_evaluation(logits: Runtime, size: tuple[int, int], batch: int) -> None:
    whole = mask_by_views(logits, picture(size), Views(window=True), batch=1)
    assert np.array_equal(windowed_mask(logits, picture(size), batch=batch), whole)


def test_a_band_less_would_be_seen(logits: Runtime) -> None:
    """The comparison above is not blind: an image moved by a pixel has another mask."""
    image = picture((200, 230))
    assert not np.array_equal(windowed_mask(logits, np.roll(image, 1, axis=0)), mask_by_views(logits, image, Views(window=True)))


@pytest.mark.parametrize("size", SIZES)
def test_ids_of_a_deploy_graph_have_one_owner_each(deploy: Runtime, size: tuple[int, int]) -> None:
    image = picture(size)
    mask = windowed_mask(deploy, image, batch=3)
    tall, wide = SIZE
    padded = np.full((max(tall, size[0]), max(wide, size[1]), 3), deploy.info.preprocess.pad_value, np.uint8)
    padded[: size[0], : size[1]] = image
    seen = np.zeros(size, int)
    for row in owned(size[0], tall):
        for column in owned(size[1], wide):
            tile = padded[row.start : row.start + tall, column.start : column.start + wide]
            answer = np.zeros(padded.shape[:2], np.uint8)
            answer[row.start : row.start + tall, column.start : column.start + wide] = deploy.run(tile[None])[0]
            mine = slice(row.first, row.last), slice(column.first, column.last)
            assert np.array_equal(mask[mine], answer[: size[0], : size[1]][mine])
            seen[mine] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 128, 1000])
def test_a_pixel_belongs_to_the_window_whose_middle_is_nearest(length: int) -> None:
    side = 64
    windows = owned(length, side)
    assert windows[0].first == 0 and windows[-1].last == length
    assert all(left.last == right.first for left, right in pairwise(windows))
    for window in windows:
        for pixel in range(window.first, window.last):
            distance = [abs(pixel + 0.5 - (other.start + side / 2)) for other in windows]
            mine = abs(pixel + 0.5 - (window.start + side / 2))
            assert mine <= min(distance) + 1  # a border between two middles falls on a whole pixel
            assert length < side or window.start <= pixel < window.start + side


def test_an_image_of_the_window_s_size_is_seen_as_without_one(deploy: Runtime) -> None:
    image = picture(SIZE)
    assert np.array_equal(windowed_mask(deploy, image), deploy.run(image[None])[0])


class Strange:
    """A runtime that answers with what it was given."""

    def __init__(self, runtime: Runtime, answer: NDArray[Any]) -> None:
        self.info, self._answer = runtime.info, answer

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(self._answer[None], len(batch), axis=0)


def test_nan_and_unknown_ids_are_refused(logits: Runtime, deploy: Runtime) -> None:
    classes = len(logits.info.classes)
    with pytest.raises(ArtifactError, match="NaN"):
        windowed_mask(Strange(logits, np.full((classes, *SIZE), np.nan, np.float32)), picture((70, 100)))  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=f"class id {classes}"):
        windowed_mask(Strange(deploy, np.full(SIZE, classes, np.uint8)), picture((70, 100)))  # type: ignore[arg-type]
    known = np.full(SIZE, classes - 1, np.uint8)
    assert (windowed_mask(Strange(deploy, known), picture((70, 100))) == classes - 1).all()  # type: ignore[arg-type]
