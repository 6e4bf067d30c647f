"""Scores against a slow loop over pixels, and on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gddctl.core.errors import DataError
from gddctl.data.score import ConfusionMatrix

EXACT = 1e-12  # float64 sums of a handful of ratios


@pytest.mark.parametrize("num_classes", [1, 2, 11, 255])
def test_matrix_and_scores_against_a_loop(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    label = rng.integers(0, num_classes, (3, 14, 10)).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = 255
    prediction = rng.integers(0, num_classes, label.shape).astype(np.uint8)
    slow = np.zeros((num_classes, num_classes), np.int64)
    for truth, said in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if truth != 255:
            slow[truth, said] += 1
    matrix = ConfusionMatrix(num_classes)
    for one, other in zip(prediction, label, strict=True):
        matrix.update(one, other)
    assert matrix.matrix.dtype == np.int64
    assert np.array_equal(matrix.matrix, slow)
    ious, recalls = [], []
    for k in range(num_classes):
        hit, shown, said = slow[k, k], slow[k].sum(), slow[:, k].sum()
        if shown + said:
            ious.append(hit / (shown + said - hit))
        if shown:
            recalls.append(hit / shown)
    scores = matrix.scores()
    assert scores.miou == pytest.approx(np.mean(ious), abs=EXACT)
    assert scores.macc == pytest.approx(np.mean(recalls), abs=EXACT)
    assert scores.aacc == pytest.approx(np.trace(slow) / slow.sum(), abs=EXACT)
    assert scores.pixels == (label != 255).sum()


def test_numbers_by_hand() -> None:
    # Class 0: 2 of 3 right, class 1: 1 right and one 0 taken for it, class 2 nowhere, class 3 said once for an ignored pixel only.
    label = np.array([[0, 0, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1, 3]], np.uint8)
    matrix = ConfusionMatrix(4)
    matrix.update(prediction, label)
    scores = matrix.scores()
    assert scores.per_class == (2 / 3, 1 / 2, None, None)
    assert scores.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.aacc == pytest.approx(3 / 4)
    assert scores.macc == pytest.approx((2 / 3 + 1) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 2]), np.array([0, 0], np.uint8))
    assert matrix.scores().per_class == (0.5, None, 0.0)
    assert matrix.scores().miou == 0.25


def test_merging_is_adding() -> None:
    rng = np.random.default_rng(0)
    a, b, both = ConfusionMatrix(4), ConfusionMatrix(4), ConfusionMatrix(4)
    for part in (a, b):
        said, truth = rng.integers(0, 4, 50), rng.integers(0, 4, 50).astype(np.uint8)
        part.update(said, truth)
        both.update(said, truth)
    a.merge(b)
    assert np.array_equal(a.matrix, both.matrix)
    with pytest.raises(ValueError, match="4 and 5 classes"):
        a.merge(ConfusionMatrix(5))


def test_wrong_ids_are_named_with_their_pixel_count() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(DataError, match="label holds id 7 in 2 pixels, expected 0 to 2, or 255"):
        matrix.update(np.array([0, 1, 2]), np.array([7, 7, 1], np.uint8))
    with pytest.raises(DataError, match="prediction holds id 3 in 1 pixels, expected 0 to 2"):
        matrix.update(np.array([0, 3, 2]), np.array([0, 1, 1], np.uint8))
    with pytest.raises(DataError, match="prediction holds id -1"):
        matrix.update(np.array([0, -1, 2]), np.array([0, 1, 1], np.uint8))
    with pytest.raises(DataError, match="shape"):
        matrix.update(np.zeros((2, 3), np.int64), np.zeros((3, 2), np.uint8))
    assert not matrix.matrix.any()


def test_nothing_labelled_has_no_score() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros(4, np.int64), np.full(4, 255, np.uint8))
    with pytest.raises(DataError, match="no labelled pixel"):
        matrix.scores()
