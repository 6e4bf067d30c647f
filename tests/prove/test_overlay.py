"""Pictures of masks."""

from __future__ import annotations

import numpy as np

from gddctl.prove.overlay import blend, colour_mask, overlay_strip

PALETTE = ((10, 20, 30), (200, 100, 50))
MASK = np.array([[0, 1], [1, 255]], np.uint8)
IMAGE = np.full((2, 2, 3), 100, np.uint8)


def test_ids_get_their_colours_and_ignored_is_black() -> None:
    assert colour_mask(MASK, PALETTE).tolist() == [[[10, 20, 30], [200, 100, 50]], [[200, 100, 50], [0, 0, 0]]]


def test_blending_leaves_ignored_pixels_alone() -> None:
    mixed = blend(IMAGE, MASK, PALETTE, opacity=0.5)
    assert mixed.tolist() == [[[55, 60, 65], [150, 100, 75]], [[150, 100, 75], [100, 100, 100]]]
    assert (blend(IMAGE, MASK, PALETTE, opacity=0.0) == IMAGE).all()


def test_a_strip_shows_every_panel_in_order() -> None:
    image = np.full((20, 30, 3), 77, np.uint8)
    masks = [("first", np.zeros((20, 30), np.uint8)), ("second", np.ones((20, 30), np.uint8))]
    strip = overlay_strip(image, masks, PALETTE, height=20)
    assert strip.shape == (20 + 24, 3 * 30 + 2 * 6, 3)
    middle = 24 + 10
    assert strip[middle, 15].tolist() == [77, 77, 77]
    assert strip[middle, 36 + 15].tolist() == [10, 20, 30] and strip[middle, 72 + 15].tolist() == [200, 100, 50]
    assert (strip[:24] < 128).any()  # titles


def test_many_panels_go_in_rows_of_three_and_one_row_on_request() -> None:
    masks = [(str(index), MASK) for index in range(5)]
    assert overlay_strip(IMAGE, masks, PALETTE, height=10).shape == (2 * 34, 3 * 10 + 2 * 6, 3)
    assert overlay_strip(IMAGE, masks[:4], PALETTE, height=10).shape == (2 * 34, 3 * 10 + 2 * 6, 3)  # the last place stays empty
    assert overlay_strip(IMAGE, masks, PALETTE, height=10, columns=6).shape == (34, 6 * 10 + 5 * 6, 3)
