"""The band along class borders against a slow reference, and that ignored pixels neither lie in it nor make it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gddctl.prove.border import BORDER_PX, near_border


def slow(label: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Every labelled pixel, every neighbour."""
    near = np.zeros(label.shape, bool)
    for y, x in np.ndindex(label.shape):
        window = label[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        near[y, x] = label[y, x] != 255 and bool(((window != label[y, x]) & (window != 255)).any())
    return near


@given(
    seed=st.integers(0, 10_000), height=st.integers(1, 20), width=st.integers(1, 24), ids=st.sampled_from([(0, 1), (0, 254), (3, 7, 254)])
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_slow_one(seed: int, height: int, width: int, ids: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.choice([*ids, 255], size=(height // 5 + 1, width // 5 + 1)).astype(np.uint8)
    label = np.kron(coarse, np.ones((5, 5), np.uint8))[:height, :width]
    assert (near_border(label) == slow(label, BORDER_PX)).all()


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_straight_border_has_a_band_of_twice_the_width(width: int) -> None:
    label = np.zeros((9, 30), np.uint8)
    label[:, 15:] = 4
    band = near_border(label, width)
    assert band.sum(axis=1).tolist() == [2 * width] * 9
    assert band[:, 15 - width : 15 + width].all()


def test_the_edge_of_an_unlabelled_region_is_no_border() -> None:
    label = np.zeros((9, 30), np.uint8)
    label[:, 10:20] = 255
    assert not near_border(label).any()
    label[:, 20:] = 1
    assert not near_border(label).any()  # ten ignored columns lie between the two
    label[:, 10:18] = 0
    assert near_border(label)[0].nonzero()[0].tolist() == [17, 20]  # two of them are left: 18 and 19
