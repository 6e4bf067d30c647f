"""Preprocessing: the way in against formulas, the way back against slow references, and both at odd sizes."""

from __future__ import annotations

import math
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.preprocess import (
    Geometry,
    fit,
    nearest,
    normalise,
    resize_image,
    resize_label,
    restore_logits,
    restore_margin,
    restore_mask,
)

FLOAT32_STEP = 2e-6  # two float32 roundings of values up to 3
BILINEAR_STEP = 2e-3  # OpenCV weighs with float32 coefficients on logits up to 10

sides = st.integers(3, 70)
fits = st.sampled_from(["stretch", "letterbox"])


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_normalise_is_the_formula(order: str) -> None:
    spec = PreprocessSpec(size=(16, 24), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), channel_order=order)  # type: ignore[arg-type]
    pixels = image(16, 24)
    expected = ((pixels / 255.0 - np.array(spec.mean)) / np.array(spec.std)).transpose(2, 0, 1)
    if order == "bgr":
        expected = expected[::-1]
    result = normalise(pixels, spec)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    assert np.abs(result - expected).max() < FLOAT32_STEP


@given(height=sides, width=sides, h=st.integers(8, 60), w=st.integers(8, 60), how=fits)
@settings(max_examples=80, deadline=None)
def test_every_size_goes_in_and_comes_back(height: int, width: int, h: int, w: int, how: str) -> None:
    spec = PreprocessSpec(size=(h, w), resize=how)  # type: ignore[arg-type]
    small, geometry = resize_image(image(height, width), spec)
    assert small.shape == (h, w, 3) and small.dtype == np.uint8
    assert geometry == fit((height, width), spec)
    assert geometry.original == (height, width) and geometry.size == (h, w)
    assert 1 <= geometry.content[0] <= h and 1 <= geometry.content[1] <= w
    label = resize_label(np.zeros((height, width), np.uint8), spec)
    assert label.shape == (h, w)
    # The label's padding is exactly what lies outside the content, and the image's is exactly the pad value.
    padding = np.ones((h, w), np.bool_)
    padding[: geometry.content[0], : geometry.content[1]] = False
    assert np.array_equal(label == 255, padding)
    assert (small[padding] == spec.pad_value).all()
    assert restore_mask(label, geometry).shape == (height, width)
    assert not restore_mask(label, geometry).any()
    assert restore_logits(np.zeros((3, h, w), np.float32), geometry).shape == (height, width)


@given(height=sides, width=sides, how=fits)
@settings(max_examples=40, deadline=None)
def test_letterbox_keeps_the_aspect_ratio(height: int, width: int, how: str) -> None:
    spec = PreprocessSpec(size=(40, 56), resize=how)  # type: ignore[arg-type]
    content = fit((height, width), spec).content
    if how == "stretch":
        assert content == (40, 56)
    else:
        assert 40 in content[:1] or 56 in content[1:]
        ratio = min(40 / height, 56 / width)
        assert abs(content[0] - height * ratio) <= 0.5 or content[0] == 1
        assert abs(content[1] - width * ratio) <= 0.5 or content[1] == 1


@pytest.mark.parametrize("how", ["stretch", "letterbox"])
def test_doubling_and_back_loses_no_label(how: str) -> None:
    label = np.random.default_rng(3).integers(0, 11, (17, 23), dtype=np.uint8)
    spec = PreprocessSpec(size=(34, 46) if how == "stretch" else (34, 61), resize=how)  # type: ignore[arg-type]
    geometry = fit(label.shape, spec)
    assert geometry.content == (34, 46)
    assert np.array_equal(restore_mask(resize_label(label, spec), geometry), label)


def slow_bilinear(layer: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """Half-pixel centres, edges repeated: the rule of torch's ``interpolate(mode="bilinear", align_corners=False)``."""
    out = np.zeros((height, width))
    rows, columns = layer.shape
    for y in range(height):
        for x in range(width):
            sy = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            sx = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            fy, fx = sy - y0, sx - x0
            top = layer[y0, x0] * (1 - fx) + layer[y0, x1] * fx
            bottom = layer[y1, x0] * (1 - fx) + layer[y1, x1] * fx
            out[y, x] = top * (1 - fy) + bottom * fy
    return out


@pytest.mark.parametrize(("original", "how"), [((37, 51), "stretch"), ((9, 13), "stretch"), ((40, 25), "letterbox"), ((24, 32), "stretch")])
def test_restore_logits_is_crop_then_bilinear_then_argmax(original: tuple[int, int], how: str) -> None:
    spec = PreprocessSpec(size=(24, 32), resize=how)  # type: ignore[arg-type]
    geometry = fit(original, spec)
    logits = np.random.default_rng(0).normal(0, 3, (5, 24, 32)).astype(np.float32)
    inside = logits[:, : geometry.content[0], : geometry.content[1]]
    large = np.stack([slow_bilinear(layer, *original) for layer in inside])
    ordered = np.sort(large, axis=0)
    decided = ordered[-1] - ordered[-2] > BILINEAR_STEP
    assert decided.mean() > 0.99  # the rest are ties up to rounding
    assert np.array_equal(restore_logits(logits, geometry)[decided], large.argmax(0)[decided])


def test_padding_has_no_say_in_the_restored_mask() -> None:
    geometry = fit((20, 40), PreprocessSpec(size=(32, 32), resize="letterbox"))
    logits = np.random.default_rng(0).normal(size=(4, 32, 32)).astype(np.float32)
    expected = restore_logits(logits, geometry)
    logits[2, geometry.content[0] :] = 1e6
    assert np.array_equal(restore_logits(logits, geometry), expected)
    logits[2, geometry.content[0] - 1] = 1e6  # the partner: inside the content it has
    assert not np.array_equal(restore_logits(logits, geometry), expected)


def test_ties_go_to_the_lower_id_and_results_own_their_memory() -> None:
    geometry = fit((16, 16), PreprocessSpec(size=(16, 16)))
    logits = np.zeros((3, 16, 16), np.float32)
    logits[1:, :8] = 2.0
    before = logits.copy()
    mask = restore_logits(logits, geometry)
    assert (mask[:8] == 1).all() and (mask[8:] == 0).all()
    assert np.array_equal(logits, before)
    source = np.ones((16, 16), np.uint8)
    restored = restore_mask(source, geometry)
    restored[:] = 7
    assert (source == 1).all()


def test_shrinking_averages_and_growing_interpolates() -> None:
    checkers = np.indices((32, 32)).sum(0) % 2 * 200
    pixels = np.repeat(checkers[:, :, None], 3, axis=2).astype(np.uint8)
    half = PreprocessSpec(size=(16, 16))
    assert (resize_image(pixels, half)[0] == 100).all()
    ramp = np.repeat(np.arange(8, dtype=np.uint8)[None, :, None] * 30, 8, axis=0).repeat(3, axis=2)
    wide = resize_image(ramp, PreprocessSpec(size=(8, 16)))[0]
    assert len(np.unique(wide)) > 8  # area interpolation would repeat the eight values when growing


def test_nothing_to_do_copies_nothing() -> None:
    pixels = image(16, 24)
    assert resize_image(pixels, PreprocessSpec(size=(16, 24)))[0] is pixels


@given(height=sides, width=sides, classes=st.integers(2, 5), fit_name=fits, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_margin_is_the_lead_of_the_largest_resized_logit(height: int, width: int, classes: int, fit_name: str, seed: int) -> None:
    geometry = fit((height, width), PreprocessSpec(size=(16, 24), resize=fit_name))  # type: ignore[arg-type]
    logits = np.random.default_rng(seed).normal(size=(classes, 16, 24)).astype(np.float32)
    rows, columns = geometry.content
    layers = [cv2.resize(np.ascontiguousarray(plane[:rows, :columns]), (width, height), interpolation=cv2.INTER_LINEAR) for plane in logits]
    ordered = np.sort(np.stack(layers), axis=0)
    assert (restore_margin(logits, geometry) == ordered[-1] - ordered[-2]).all()


def test_the_margin_belongs_to_the_winner() -> None:
    geometry = fit((2, 2), PreprocessSpec(size=(8, 8)))
    logits = np.zeros((3, 8, 8), np.float32)
    logits[2], logits[1] = 5.0, 3.5
    assert restore_margin(logits, geometry).tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert (restore_logits(logits, geometry) == 2).all()


def test_a_mask_grows_and_shrinks_by_pixel_centres_wherever_it_runs() -> None:
    """The rule in fractions, for sizes whose centres meet borders too; OpenCV's own answer there depends on its version."""
    for size, wanted in ((190, 163), (118, 257), (254, 53), (138, 299), (8, 20), (5, 5), (1, 7)):
        expected = [math.floor(Fraction(2 * place + 1, 2) * Fraction(size, wanted)) for place in range(wanted)]
        assert nearest(size, wanted).tolist() == expected
        mask = np.arange(size, dtype=np.uint8)[None].repeat(3, axis=0)
        assert restore_mask(mask, Geometry((3, wanted), (3, size), (3, size)))[0].tolist() == expected
