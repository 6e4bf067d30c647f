"""Images normalised for the student reach a teacher normalised its own way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.preprocess import normalise
from gddctl.models.renormalise import Renormalise

SIZE = (16, 24)
IMAGENET = PreprocessSpec(size=SIZE)
HALVES = PreprocessSpec(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
UNEVEN_BGR = PreprocessSpec(size=SIZE, mean=(0.1, 0.4, 0.7), std=(0.9, 0.5, 0.2), channel_order="bgr")
BYTES = PreprocessSpec(size=SIZE, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))  # a network that takes 0..255
ROUNDING = 1e-6  # of the largest value: three float32 roundings on the way there, two on the direct one


def image() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("wanted", [HALVES, UNEVEN_BGR, BYTES, IMAGENET.model_copy(update={"channel_order": "bgr"})])
@pytest.mark.parametrize("given", [IMAGENET, UNEVEN_BGR])
def test_it_is_what_normalising_the_pixels_gives(given: PreprocessSpec, wanted: PreprocessSpec) -> None:
    shown = torch.from_numpy(normalise(image(), given))[None]
    direct = torch.from_numpy(normalise(image(), wanted))[None]
    found = Renormalise(given, wanted)(shown)
    assert found.dtype == torch.float32
    assert (found - direct).abs().max() <= ROUNDING * max(1.0, float(direct.abs().max()))
    if given != wanted:
        assert (shown - direct).abs().max() > 0.1  # the partner: left alone it would be another image


def test_the_same_normalisation_changes_no_bit() -> None:
    shown = torch.from_numpy(normalise(image(), IMAGENET))[None]
    resized = IMAGENET.model_copy(update={"size": (32, 32)})
    assert Renormalise(IMAGENET, resized)(shown) is shown


def test_no_state_dict_holds_its_constants() -> None:
    assert Renormalise(IMAGENET, HALVES).state_dict() == {}
