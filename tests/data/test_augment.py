"""Augmentation: the seed alone decides, image and label stay together, padding is ignored."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import EnvironmentMissing
from gddctl.data.augment import TrainAugment

CROP = (48, 64)


def pair(height: int = 60, width: int = 80) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Blocks of classes, and an image whose grey value is 20 times the class."""
    label = (np.arange(height)[:, None] // 12 + np.arange(width)[None] // 16 * 2).astype(np.uint8) % 11
    return np.repeat(label[:, :, None] * np.uint8(20), 3, axis=2), label


def agreement(image: NDArray[np.uint8], label: NDArray[np.uint8]) -> float:
    """Share of labelled pixels whose grey value belongs to their label."""
    inside = label != 255
    return float((np.abs(image[inside][:, 0].astype(int) - 20 * label[inside].astype(int)) <= 9).mean())


def test_the_seed_alone_decides() -> None:
    image, label = pair()
    augment = TrainAugment(CROP, (0.5, 2.0), 0.5, color=True)
    first = [augment(image, label, seed) for seed in range(6)]
    augment(image[:, ::-1], label[:, ::-1], 77)
    other = TrainAugment(CROP, (0.5, 2.0), 0.5, color=True)
    np.random.seed(1)
    for seed in (5, 0, 3, 1, 4, 2):
        again = other(image, label, seed)
        assert np.array_equal(again[0], first[seed][0]) and np.array_equal(again[1], first[seed][1])
    assert len({crop.tobytes() for crop, _ in first}) == 6


def test_large_seeds_are_told_apart() -> None:
    image, label = pair()
    augment = TrainAugment(CROP, (0.5, 2.0), 0.5, color=False)
    assert not np.array_equal(augment(image, label, 5)[0], augment(image, label, 5 + 2**32)[0])


def test_shapes_types_and_untouched_inputs() -> None:
    image, label = pair()
    kept = image.copy(), label.copy()
    for seed in range(20):
        crop, mask = TrainAugment(CROP, (0.5, 2.0), 0.5, color=True)(image, label, seed)
        assert crop.shape == (*CROP, 3) and crop.dtype == np.uint8 and crop.flags.c_contiguous
        assert mask.shape == CROP and mask.dtype == np.uint8 and mask.flags.c_contiguous
        assert set(np.unique(mask)) <= {*range(11), 255}
    assert np.array_equal(image, kept[0]) and np.array_equal(label, kept[1])


def test_image_and_label_move_together() -> None:
    image, label = pair()
    augment = TrainAugment(CROP, (0.5, 2.0), 0.5, color=False)
    together, apart = [], []
    for seed in range(40):
        crop, mask = augment(image, label, seed)
        together.append(agreement(crop, mask))
        apart.append(agreement(crop, np.ascontiguousarray(mask[:, ::-1])))
    assert min(together) > 0.75 and np.mean(together) > 0.88  # bilinear edges between blocks are neither class
    assert np.mean(apart) < 0.4  # the partner: a flip of the label alone is seen


def test_padding_is_ignored_and_only_padding() -> None:
    image, label = pair(40, 60)
    augment = TrainAugment(CROP, (0.5, 0.5), 0.0, color=False)
    for seed in range(10):
        crop, mask = augment(image + np.uint8(1), label, seed)
        assert (mask != 255).sum() == 20 * 30
        assert (crop[mask == 255] == (124, 116, 104)).all()
    corners = {tuple(np.argwhere(augment(image, label, seed)[1] != 255)[0]) for seed in range(20)}
    assert len(corners) > 5  # the picture does not always lie in the middle


def test_flip_happens_as_often_as_it_is_asked_for() -> None:
    image, label = pair(*CROP)
    for chance, expected in ((0.0, 0), (1.0, 30)):
        augment = TrainAugment(CROP, (1.0, 1.0), chance, color=False)
        flipped = sum(np.array_equal(augment(image, label, seed)[1], label[:, ::-1]) for seed in range(30))
        assert flipped == expected


def test_scale_spreads_over_its_range() -> None:
    image, label = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
    augment = TrainAugment((80, 120), (0.5, 2.0), 0.0, color=False)
    scales = np.array([np.sqrt((augment(image, label, seed)[1] == 0).sum() / 2400) for seed in range(100)])
    assert scales.min() < 0.7 and scales.max() > 1.8
    assert scales.min() > 0.48 and scales.max() <= 2.0
    assert abs(np.median(scales) - 1.25) < 0.25  # uniform, not log-uniform, as in the mmsegmentation recipe


def test_colour_changes_the_image_alone_and_independently_of_the_flip() -> None:
    """With one generator a step, all seeded alike, flipped would always mean brightened."""
    image, label = pair(*CROP)
    augment = TrainAugment(CROP, (1.0, 1.0), 0.5, color=True)
    seen = set()
    for seed in range(60):
        crop, mask = augment(image, label, seed)
        flipped = np.array_equal(mask, label[:, ::-1])
        assert flipped or np.array_equal(mask, label)
        brightness = int(crop.mean()) - int(image.mean())
        seen.add((flipped, int(np.sign(brightness) * (abs(brightness) > 3))))
    assert {(True, 1), (True, -1), (False, 1), (False, -1)} <= seen


def test_albumentations_does_not_ask_the_network() -> None:
    TrainAugment(CROP, (1.0, 1.0), 0.5, color=False)
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_a_missing_albumentations_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(EnvironmentMissing, match=r"gddctl\[train\]"):
        TrainAugment(CROP, (1.0, 1.0), 0.5, color=False)
