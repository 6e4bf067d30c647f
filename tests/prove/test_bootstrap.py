"""The bootstrap: equal to a slow loop, paired, and holding the truth as often as it says, also with few seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import DataError
from gddctl.data.score import ConfusionMatrix
from gddctl.prove.bootstrap import Array, ImageDraws, Tallies, image_part, paired_difference, seed_part

EXACT = 1e-12  # integers below 2**53 divided in another order
REPEATS = 600  # of a simulated study: the share that covers has a standard error of 0.9 points
BAND = (0.92, 0.98)  # 0.95 within more than three of them
IMAGES, DRAWS = 60, 500


def made_counts(rng: np.random.Generator, images: int, classes: int) -> NDArray[np.int64]:
    """Counts in which the last class shows on one image alone, so that draws without it exist."""
    counts = rng.integers(0, 500, (images, classes, classes)) + 800 * np.eye(classes, dtype=np.int64)
    counts[1:, -1, :] = counts[1:, :, -1] = 0
    return counts.astype(np.int64)


def test_scores_of_draws_equal_a_confusion_matrix_filled_image_by_image() -> None:
    counts = made_counts(np.random.default_rng(0), images=7, classes=5)
    draws = ImageDraws(7, 40, seed=3)
    found = draws.scores(Tallies.of(counts))
    absent = 0
    for times, score in zip(draws.times, found, strict=True):
        matrix = ConfusionMatrix(5)
        for image, often in enumerate(times):
            for _ in range(int(often)):
                matrix.matrix += counts[image]
        absent += matrix.scores().per_class[-1] is None
        assert score == pytest.approx(matrix.scores().miou, abs=EXACT)
    assert 0 < absent < 40  # both kinds of draws were looked at
    whole = ConfusionMatrix(5)
    whole.matrix += counts.sum(0)
    assert Tallies.of(counts).miou == pytest.approx(whole.scores().miou, abs=EXACT)


def test_draws_have_as_many_images_as_the_set_and_prefer_none() -> None:
    times = ImageDraws(300, 2000, seed=0).times.astype(int)
    assert (times.sum(1) == 300).all()
    assert np.abs(times.mean(0) - 1).max() < 0.12  # five standard errors of a mean over 2000 draws
    assert times.var() == pytest.approx(1 - 1 / 300, abs=0.02)  # multinomial
    assert (ImageDraws(300, 2000, seed=0).times == times).all() and (ImageDraws(300, 2000, seed=1).times != times).any()


def test_neighbours_are_drawn_together() -> None:
    times = ImageDraws(23, 4000, seed=0, neighbours=5).times.astype(int)
    assert (times.sum(1) == 23).all()  # four whole runs and three images of the fifth
    starts = np.random.default_rng((0, 0)).integers(23, size=(512, 5, 1))[:, :, 0]  # the first chunk, counted in a slow loop
    for row, drawn in zip(times[:20], starts, strict=False):
        slow = [0] * 23
        for run, start in enumerate(drawn):
            for offset in range(5 if run < 4 else 3):
                slow[(start + offset) % 23] += 1
        assert row.tolist() == slow
    together = np.corrcoef(times[:, 4], times[:, 5])[0, 1]
    apart = np.corrcoef(times[:, 4], times[:, 15])[0, 1]
    assert together > 0.6 > 0.1 > apart  # neighbours share four of five runs
    with pytest.raises(DataError, match=r"runs of 6 neighbours among 23 images.*compare\.neighbours"):
        ImageDraws(23, 10, seed=0, neighbours=6)
    alone = ImageDraws(23, 4000, seed=0).times.astype(int)
    assert abs(np.corrcoef(alone[:, 4], alone[:, 5])[0, 1] + 1 / 22) < 0.08  # multinomial


def test_parts_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(1)
    observed = rng.normal(1, 0.5, 4)
    resampled = observed[:, None] + rng.normal(0, 0.6, 50) + rng.normal(0, 0.3, (4, 50))
    moved = [sum(resampled[seed][draw] for seed in range(4)) / 4 for draw in range(50)]
    middle = sum(moved) / 50
    moved = [value - middle for value in moved]
    own = 0.0
    for draw in range(50):
        errors = [resampled[seed][draw] - observed[seed] for seed in range(4)]
        own += sum((error - sum(errors) / 4) ** 2 for error in errors) / 3 / 50
    total = sum(value**2 for value in moved) / 50
    shrink = max(0.0, (total - own / 4) / total) ** 0.5
    assert 0.5 < shrink < 0.99
    assert image_part(observed, resampled) == pytest.approx([shrink * value for value in moved], abs=EXACT)
    drawn = seed_part(observed, 100_000, seed=0)
    spread = (sum((value - observed.mean()) ** 2 for value in observed) / 3) ** 0.5
    assert np.quantile(drawn, 0.975) == pytest.approx(3.182 * spread / 2, rel=0.03)  # t with 3 degrees of freedom, from a table


def test_an_interval_is_the_quantiles_of_its_draws_and_p_agrees_with_it() -> None:
    rng = np.random.default_rng(2)
    observed = rng.normal(0.5, 0.3, 5)
    resampled = observed[:, None] + rng.normal(0, 0.2, (5, DRAWS))
    found = paired_difference(observed, resampled, draws=DRAWS, seed=7)
    drawn = observed.mean() + image_part(observed, resampled) + seed_part(observed, DRAWS, 7)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=EXACT)
    assert found.p == pytest.approx(2 * (min((drawn <= 0).sum(), (drawn >= 0).sum()) + 1) / (DRAWS + 1))
    assert (
        found == paired_difference(observed, resampled, draws=DRAWS, seed=7) != paired_difference(observed, resampled, draws=DRAWS, seed=8)
    )


def test_one_seed_covers_images_alone_and_nothing_covers_nothing() -> None:
    resampled = np.random.default_rng(0).normal(1.0, 0.4, (1, DRAWS))
    found = paired_difference(np.array([1.0]), resampled, draws=DRAWS, seed=0)
    assert (found.low, found.high) == pytest.approx(tuple(1 + np.quantile(resampled - resampled.mean(), [0.025, 0.975])))
    assert paired_difference(np.array([1.0]), None, draws=DRAWS, seed=0).low is None
    assert paired_difference(np.array([1.0, 1.2]), None, draws=DRAWS, seed=0).low is not None


# A study of two equal methods: each seed's difference has a part of its own (a), each image one that all seeds share (b), and each
# seed on each image one of its own (c). The truth is zero; coverage is the share of studies whose interval holds it.


def coverage(a: float, b: float, c: float, seeds: int, ends: Callable[[Array, Array], tuple[float, float]]) -> float:
    rng, hits = np.random.default_rng([seeds, int(10 * a), int(10 * b), int(10 * c)]), 0
    weights = ImageDraws(IMAGES, DRAWS, 0).times / IMAGES
    for _ in range(REPEATS):
        cells = a * rng.standard_normal((seeds, 1)) + b * rng.standard_normal((1, IMAGES)) + c * rng.standard_normal((seeds, IMAGES))
        low, high = ends(cells.mean(1), cells @ weights.T)
        hits += low <= 0 <= high
    return hits / REPEATS


def video(neighbours: int) -> float:
    """Coverage where the part that all seeds share comes in scenes of three frames."""
    rng, hits = np.random.default_rng(11), 0
    weights = ImageDraws(IMAGES, DRAWS, 0, neighbours).times / IMAGES
    for _ in range(REPEATS):
        shared = np.repeat(rng.standard_normal((1, IMAGES // 3)), 3, axis=1)
        cells = np.repeat(shared, 5, axis=0)
        low, high = ours(cells.mean(1), cells @ weights.T)
        hits += low <= 0 <= high
    return hits / REPEATS


def test_frames_of_a_video_need_runs() -> None:
    assert video(1) < 0.74  # as if they were independent: far too narrow (measured 0.68)
    assert video(6) > 0.83  # measured 0.88: twenty scenes are few, and runs do not begin where scenes do


def ours(observed: Array, resampled: Array) -> tuple[float, float]:
    found = paired_difference(observed, resampled, draws=DRAWS, seed=0)
    assert found.low is not None and found.high is not None
    return found.low, found.high


def percentile(observed: Array, resampled: Array) -> tuple[float, float]:
    """What is usually done: seeds resampled like images."""
    picked = np.random.default_rng(0).integers(0, len(observed), (DRAWS, len(observed)))
    low, high = np.quantile(resampled[picked, np.arange(DRAWS)[:, None]].mean(1), [0.025, 0.975])
    return float(low), float(high)


def twice(observed: Array, resampled: Array) -> tuple[float, float]:
    """Without taking the seeds' own errors out of the images' part."""
    drawn = resampled.mean(0) + seed_part(observed, DRAWS, 0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("a", "b", "c"), [(1.0, 0.0, 0.01), (0.0, 8.0, 0.01), (0.0, 0.0, 8.0), (0.7, 3.0, 4.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(a: float, b: float, c: float, seeds: int) -> None:
    low, high = BAND
    # With three seeds and little of their own, t's heavy tails beside the images' part make the interval wide: safe, not exact.
    assert low <= coverage(a, b, c, seeds, ours) <= (1.0 if seeds == 3 else high)


def test_seeds_resampled_like_images_hold_the_truth_too_seldom() -> None:
    assert coverage(1.0, 0.0, 0.01, 5, percentile) < 0.87 < BAND[0] <= coverage(1.0, 0.0, 0.01, 5, ours)


def test_errors_counted_twice_make_intervals_too_wide() -> None:
    assert coverage(0.0, 0.0, 8.0, 5, twice) > BAND[1]


def cell(rng: np.random.Generator, hardness: Array, skill: float) -> NDArray[np.int64]:
    """Counts of one training on three classes: every image has its own hardness, every class its own share of it."""
    size = np.array([600, 300, 100])
    right = rng.binomial(size, np.clip(skill + hardness + 0.02 * rng.standard_normal(hardness.shape), 0.05, 0.98))
    counts = np.zeros((len(hardness), 3, 3), np.int64)
    for label in range(3):
        other = rng.binomial(size[label] - right[:, label], 0.5)
        counts[:, label, label], counts[:, label, (label + 1) % 3] = right[:, label], other
        counts[:, label, (label + 2) % 3] = size[label] - right[:, label] - other
    return counts


def test_coverage_holds_through_real_confusion_counts() -> None:
    rng, draws, hits, repeats = np.random.default_rng(5), ImageDraws(IMAGES, 300, 0), 0, 150
    for _ in range(repeats):
        hardness = 0.1 * rng.standard_normal((IMAGES, 3))
        tallies = [[Tallies.of(cell(rng, hardness, 0.7 + 0.01 * rng.standard_normal())) for _ in range(5)] for _ in range(2)]
        observed = np.array([one.miou - other.miou for one, other in zip(*tallies, strict=True)])
        resampled = np.stack([draws.scores(one) - draws.scores(other) for one, other in zip(*tallies, strict=True)])
        found = paired_difference(observed, resampled, draws=300, seed=0)
        assert found.low is not None and found.high is not None
        hits += found.low <= 0 <= found.high
    assert 0.89 <= hits / repeats <= 1.0  # 0.95 less three standard errors; 300 draws put the ends of t's tails roughly


def test_pairing_matters() -> None:
    """Hard images are hard for both methods: drawn apart, that would look like doubt about their difference."""
    rng = np.random.default_rng(6)
    hardness = 0.15 * rng.standard_normal((IMAGES, 3))
    one, other = Tallies.of(cell(rng, hardness, 0.72)), Tallies.of(cell(rng, hardness, 0.70))
    observed = np.array([one.miou - other.miou])
    same, apart = ImageDraws(IMAGES, DRAWS, 0), ImageDraws(IMAGES, DRAWS, 1)
    widths = []
    for draws in (same, apart):
        found = paired_difference(observed, (same.scores(one) - draws.scores(other))[None], draws=DRAWS, seed=0)
        assert found.low is not None and found.high is not None
        widths.append(found.high - found.low)
    assert widths[0] < 0.5 * widths[1]
