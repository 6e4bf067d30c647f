"""Layers of a picture: what is right and wrong where, and files that a browser shows as they were meant."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gddctl.prove.layers import ERROR_PALETTE, LONGEST, differing, draw_layers, indexed_png

PALETTE = ((10, 20, 30), (200, 100, 50))
LABEL = np.array([[0, 1], [1, 255]], np.uint8)
ANSWER = np.array([[0, 0], [1, 1]], np.uint8)


def rgba(data: bytes) -> list[list[tuple[int, ...]]]:
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    return [[tuple(int(value) for value in pixel) for pixel in line] for line in picture]


def test_a_mask_keeps_its_colours_and_what_is_ignored_is_clear() -> None:
    pixels = rgba(indexed_png(LABEL, PALETTE))
    assert pixels[0] == [(10, 20, 30, 255), (200, 100, 50, 255)] and pixels[1][0] == (200, 100, 50, 255)
    assert pixels[1][1][3] == 0
    assert rgba(indexed_png(np.array([[7]], np.uint8), PALETTE))[0][0][3] == 0  # an id without a colour


def test_a_full_table_of_255_classes_fits() -> None:
    palette = [(index, 255 - index, 7) for index in range(255)]
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pixels = [pixel for line in rgba(indexed_png(mask, palette)) for pixel in line]
    assert [pixel[:3] for pixel in pixels[:255]] == palette and pixels[255][3] == 0


def test_wrong_is_wrong_and_what_is_not_labelled_is_neither() -> None:
    assert differing(LABEL, ANSWER).tolist() == [[0, 1], [0, 255]]


def test_layers_come_in_order_with_their_shares() -> None:
    image = np.full((2, 2, 3), 128, np.uint8)
    size, layers = draw_layers(image, LABEL, [("one", ANSWER), ("two", LABEL)], PALETTE, changes=[("one", "two")])
    assert size == (2, 2)
    assert [(layer.title, layer.kind, layer.suffix) for layer in layers] == [
        ("image", "image", ".jpg"), ("label", "label", ".png"), ("one", "answer", ".png"), ("two", "answer", ".png"),
        ("two against one", "change", ".png"),
    ]  # fmt: skip
    assert [layer.right for layer in layers] == [None, None, pytest.approx(2 / 3), 1.0, 0.5]  # of 3 labelled pixels; of all 4
    assert rgba(layers[2].errors or b"")[0][1][:3] == ERROR_PALETTE[1] and rgba(layers[2].errors or b"")[1][1][3] == 0
    assert layers[0].errors is None and layers[4].errors is None


def test_a_label_that_says_nothing_gives_no_share() -> None:
    nothing = np.full((2, 2), 255, np.uint8)
    _, layers = draw_layers(np.zeros((2, 2, 3), np.uint8), nothing, [("one", ANSWER)], PALETTE)
    assert layers[2].right is None


def test_large_images_are_made_small_and_small_ones_left() -> None:
    for height, width, expected in ((3000, 1500, (LONGEST, LONGEST // 2)), (10, 20, (10, 20)), (1, 4000, (1, LONGEST))):
        size, layers = draw_layers(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8), [], PALETTE)
        assert size == expected
        assert all(Image.open(io.BytesIO(layer.data)).size == (expected[1], expected[0]) for layer in layers)
