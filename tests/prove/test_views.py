"""Flip, scales and sliding window: every pixel weighs once, the sums are those of a slow reference, and what cannot be meant is refused."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.prove import views as views_module
from gddctl.prove.evaluate import evaluate
from gddctl.prove.predict import predict_mask
from gddctl.prove.views import Views, mask_by_views, mean_logits, window_starts
from gddctl.runtime.open import open_runtime

TILE = (16, 24)
FLOAT32_SUMS = 1e-4  # a few float32 additions of values around 1, each off by at most 6e-8, with a wide margin
Answer = Callable[[NDArray[Any]], NDArray[Any]]


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth enough that neighbouring pixels are alike."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def uneven(batch: NDArray[Any]) -> NDArray[Any]:
    """Logits that depend on where in the window a pixel lies, so that windows disagree and mirrors show."""
    height, width = batch.shape[2:]
    ramp = np.linspace(0, 0.5, width, dtype=np.float32)[None, :] + np.linspace(0.3, 0, height, dtype=np.float32)[:, None] ** 2
    lift = np.stack([ramp, 0.4 - ramp, 0 * ramp])
    return batch[:, [1, 0, 2]] + lift.astype(np.float32)


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 20, 26, 27, 100, 257])
@pytest.mark.parametrize("side", [1, 2, 8, 16])
def test_windows_cover_everything_and_stay_inside(length: int, side: int) -> None:
    starts = window_starts(length, side)
    covered = {place for start in starts for place in range(start, start + side)}
    assert covered >= set(range(length))
    assert starts == sorted(set(starts)) and starts[0] == 0
    if length > side:
        assert starts[-1] == length - side
        assert all(after - before <= max(1, side * 2 // 3) for before, after in itertools.pairwise(starts))


@pytest.mark.parametrize("size", [(16, 24), (40, 24), (17, 25), (9, 60), (7, 5), (53, 71)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch", [1, 5])
def test_constant_logits_stay_what_they_are_at_every_pixel(parts: Any, size: tuple[int, int], flip: bool, batch: int) -> None:
    constant = np.array([0.25, -3.0, 7.0], np.float32)
    model = parts.Answering(lambda a: np.broadcast_to(constant[None, :, None, None], (len(a), 3, *TILE)), parts.info())
    found = mean_logits(model, picture(*size), flip, batch)
    assert found.shape == (3, *size)
    assert np.abs(found - constant[:, None, None]).max() < FLOAT32_SUMS


def test_a_window_too_few_is_seen(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "window_starts", lambda length, side: window_starts(length, side)[:-1] or [0])
    model = parts.Answering(lambda a: np.ones((len(a), 3, *TILE), np.float32), parts.info())
    with np.errstate(divide="ignore", invalid="ignore"):
        assert not np.allclose(mean_logits(model, picture(40, 50), False, 1), 1.0)


@pytest.mark.parametrize("window", [False, True])
def test_one_window_is_the_plain_evaluation(parts: Any, window: bool) -> None:
    model = parts.Answering(uneven, parts.info())
    world = parts.world(4, size=TILE)
    for sample in world.samples:
        assert np.array_equal(mask_by_views(model, sample.image, Views(window=window)), predict_mask(model, sample.image))
    plain, seen = evaluate(model, world, split="val"), evaluate(model, world, split="val", views=Views(window=window))
    assert (plain.miou, plain.per_class) == (seen.miou, seen.per_class)
    assert plain.miou < 0.9  # a world in which something is wrong


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_whole_images_of_any_shape_are_seen_as_plain_evaluation_sees_them(parts: Any, resize: Any) -> None:
    spec = PreprocessSpec(size=TILE, resize=resize, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    model = parts.Answering(uneven, parts.info(preprocess=spec))
    for size in ((50, 31), (30, 90), (10, 12)):
        image = picture(*size)
        assert np.array_equal(mask_by_views(model, image, Views()), predict_mask(model, image))


@pytest.mark.parametrize("size", [TILE, (50, 31), (30, 90)])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_symmetric_image_is_not_changed_by_flip(parts: Any, size: tuple[int, int], resize: Any) -> None:
    half = picture(*size)
    image = np.maximum(half, half[:, ::-1])
    spec = PreprocessSpec(size=TILE, resize=resize, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pointwise = parts.Answering(lambda a: a[:, [1, 0, 2]], parts.info(preprocess=spec))
    plain, flipped = predict_mask(pointwise, image), mask_by_views(pointwise, image, Views(flip=True))
    # Bilinear weights left and right of the middle may be rounded differently: a tie or two.
    assert (plain != flipped).mean() < 0.01


def test_flip_is_the_mean_of_both_directions_mirrored_back(parts: Any) -> None:
    lopsided = parts.Answering(uneven, parts.info())
    half = picture(*TILE)
    image = np.maximum(half, half[:, ::-1])
    alone, both = mean_logits(lopsided, image, False, 1), mean_logits(lopsided, image, True, 1)
    assert np.abs(alone - alone[:, :, ::-1]).max() > 0.1  # the network itself is lopsided
    assert np.abs(both - both[:, :, ::-1]).max() < FLOAT32_SUMS  # what flip makes of a symmetric image is not
    assert np.abs(both - (alone + alone[:, :, ::-1]) / 2).max() < FLOAT32_SUMS


def slide_starts(length: int, side: int, stride: int) -> list[int]:
    """The published grid: steps of ``stride`` until the end is reached, the end of the last window clipped to the image's."""
    ends, at = [], 0
    while True:
        ends.append(min(at + side, length))
        if at + side >= length:
            return [max(end - side, 0) for end in ends]
        at += stride


def slow_logits(answer: Answer, image: NDArray[np.uint8], flip: bool) -> NDArray[np.float64]:
    """Mean over windows, then over directions, one pixel at a time, from the definition."""
    tall, wide = TILE
    directions = []
    for mirrored in (False, True) if flip else (False,):
        shown = np.fliplr(image) if mirrored else image
        height, width = shown.shape[:2]
        tops, lefts = slide_starts(height, tall, 10), slide_starts(width, wide, 16)  # two thirds of 16 and 24, rounded down
        grey = np.full((tall, wide, 3), 114, np.uint8)
        answers = {}
        for top in tops:
            for left in lefts:
                tile = grey.copy()
                part = shown[top : top + tall, left : left + wide]
                tile[: part.shape[0], : part.shape[1]] = part
                answers[top, left] = answer((tile.transpose(2, 0, 1)[None] / 255).astype(np.float32))[0].astype(np.float64)
        out = np.zeros((3, height, width))
        for y in range(height):
            for x in range(width):
                seen = [a[:, y - t, x - w] for (t, w), a in answers.items() if t <= y < t + tall and w <= x < w + wide]
                out[:, y, x] = sum(seen) / len(seen)
        directions.append(out[:, :, ::-1] if mirrored else out)
    return np.asarray(sum(directions) / len(directions))


def slow_resize(layer: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Bilinear with half-pixel centres, one pixel at a time."""
    height, width = layer.shape
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            v = min(max((y + 0.5) * height / size[0] - 0.5, 0), height - 1)
            u = min(max((x + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(v), int(u)
            low, right = min(top + 1, height - 1), min(left + 1, width - 1)
            b, a = v - top, u - left
            out[y, x] = (1 - b) * ((1 - a) * layer[top, left] + a * layer[top, right]) + b * (
                (1 - a) * layer[low, left] + a * layer[low, right]
            )
    return out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.25), (0.75, 1.5)])
@pytest.mark.parametrize("size", [(20, 31), (33, 50)])
def test_masks_are_those_of_a_slow_reference(parts: Any, flip: bool, scales: tuple[float, ...], size: tuple[int, int]) -> None:
    image, total = picture(*size, seed=3), np.zeros((3, *size))
    for scale in scales:
        height, width = round(size[0] * scale), round(size[1] * scale)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = image if scale == 1 else np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
        total += np.stack([slow_resize(layer, size) for layer in slow_logits(uneven, scaled, flip)])
    ordered = np.sort(total, axis=0)
    sure = ordered[-1] - ordered[-2] > FLOAT32_SUMS * len(scales)
    assert sure.mean() > 0.98
    for batch in (1, 4):
        views = Views(flip=flip, scales=scales, window=True)
        mask = mask_by_views(parts.Answering(uneven, parts.info()), image, views, batch=batch)
        assert np.array_equal(mask[sure], total.argmax(axis=0)[sure])
    assert not np.array_equal(mask, predict_mask(parts.Answering(uneven, parts.info()), image))  # the views do change something


def test_the_logits_of_an_image_are_held_once(parts: Any) -> None:
    model, image = parts.Answering(uneven, parts.info()), picture(400, 600)
    held = 3 * 400 * 600 * 4
    peaks = []
    for views in (Views(window=True), Views(flip=True, scales=(1.0, 0.75, 0.9), window=True)):
        tracemalloc.start()
        mask_by_views(model, image, views, batch=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 40 x 37 windows of 16x24: kept, they alone would be 2.4 times the logits. Layers, weights and masks are the rest.
    assert held < peaks[0] < 2.2 * held
    assert 2 * held < peaks[1] < 2.7 * held  # the sum, and the logits of one scale: those of two would be 3


def test_the_protocol_says_what_was_shown(parts: Any) -> None:
    model, world = parts.Answering(uneven, parts.info()), parts.world(2, size=(20, 30))

    def protocol(**views: Any) -> str:
        return evaluate(model, world, split="val", views=Views(**views)).protocol

    assert protocol() == (
        "single scale, whole image, stretch to 16x24 (area), logits bilinear to label size, then argmax, no flip, full label resolution"
    )
    assert protocol(flip=True) == (
        "single scale, whole image, stretch to 16x24 (area), "
        "logits averaged, bilinear to label size, then argmax, with flip, full label resolution"
    )
    assert protocol(window=True) == (
        "single scale, sliding window 16x24 with stride 10x16 over the image, "
        "logits averaged, bilinear to label size, then argmax, no flip, full label resolution"
    )
    assert protocol(window=True, scales=(0.75, 1.0, 1.25)).startswith("image scaled by 0.75+1+1.25 (area), sliding window")


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"scales": (0.5, 1.0)}, "scales 0.5\\+1 without a window.*add --window"),
        ({"scales": (0.0,), "window": True}, "scales 0: expected factors"),
        ({"scales": (-1.0,), "window": True}, "expected factors"),
        ({"scales": (float("nan"),), "window": True}, "expected factors"),
        ({"scales": (float("inf"),), "window": True}, "expected factors"),
        ({"scales": (100.0,), "window": True}, "expected factors"),
        ({"scales": (), "window": True}, "expected factors"),
        ({"scales": (1.0, 1.0), "window": True}, "one stands twice"),
    ],
)
def test_views_that_cannot_be_meant_are_refused(views: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Views(**views)


@pytest.mark.parametrize("views", [Views(flip=True), Views(window=True)])
def test_a_deploy_graph_has_no_logits_to_average(parts: Any, views: Views) -> None:
    model = parts.Answering(lambda batch: batch[..., 0] * 0, parts.info("deploy"))
    with pytest.raises(UsageError, match="deploy graph.*logits file"):
        evaluate(model, parts.world(), split="val", views=views)
    assert evaluate(model, parts.world(), split="val", views=Views()).images == 4


def test_nan_in_one_window_is_an_error(parts: Any) -> None:
    def broken(batch: Any) -> Any:
        out = batch.copy()
        out[-1, 1, 3, 3] = np.nan
        return out

    with pytest.raises(ArtifactError, match="1 NaN or Inf"):
        evaluate(parts.Answering(broken, parts.info()), parts.world(1, size=(40, 50)), split="val", views=Views(window=True))


def test_real_runtimes_agree_on_every_view(psp: Any, parts: Any) -> None:
    image = np.asarray(cv2.resize(psp.val[0].image, (130, 101), interpolation=cv2.INTER_LINEAR))
    full = Views(flip=True, scales=(0.75, 1.25), window=True)
    with open_runtime(psp.bundle, threads=1) as torch, open_runtime(psp.fp32.path, threads=1) as onnx:
        for views in (Views(flip=True), Views(window=True), full):
            first, second = mask_by_views(torch, image, views), mask_by_views(onnx, image, views, batch=3)
            assert first.shape == (101, 130)
            # The two differ by float32 rounding alone: a pixel may tip where two classes tie.
            assert (first == second).mean() > 0.999
        sample = psp.val[1]  # of the network's own size
        assert np.array_equal(mask_by_views(onnx, sample.image, Views(window=True)), predict_mask(onnx, sample.image))
        assert not np.array_equal(mask_by_views(onnx, image, full), predict_mask(onnx, image))
