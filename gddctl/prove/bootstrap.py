"""How sure a difference of mIoU between two methods is: resampled images, and Student's t for seeds, of which there are few.

Two things could have come out otherwise: the images that happen to be in the split, and the seeds that happened to be trained. Images
are many: they are resampled, the same draw for every cell, and mIoU is computed anew from the summed counts. Seeds are few: resampling
five of them gives intervals that hold the truth 82 times in 100 instead of 95 (docs/decisions/0018), so their mean is drawn from
Student's t with their own spread instead. Both parts are paired: it is the difference, seed by seed, that is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import DataError
from gddctl.core.reports.comparison import LEVEL

NAME = "paired two-way bootstrap (images resampled, seeds by Student's t)"
LEAST_RUNS = 4  # of neighbours that fit into the set
_CHUNK = 512  # draws at a time: bounds memory to a few MB however many images there are

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tallies:
    """What mIoU needs of a cell's counts: right pixels, and pixels by label and by prediction. Each (images, K) float64, exact."""

    right: Array
    label: Array
    prediction: Array

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> Tallies:
        """From (images, K, K), rows = label."""
        right = np.diagonal(counts, axis1=1, axis2=2)
        return cls(right.astype(np.float64), counts.sum(2).astype(np.float64), counts.sum(1).astype(np.float64))

    def scores(self, weights: Array) -> Array:
        """mIoU 0..1 of each draw: over the classes that occur in label or prediction, from counts summed over the set.

        Args:
            weights: (draws, images), how often each image is in the draw.

        Shape: (draws,).
        """
        right = weights @ self.right
        union = weights @ (self.label + self.prediction) - right
        iou = np.divide(right, union, out=np.zeros_like(right), where=union > 0)
        result: Array = iou.sum(1) / np.maximum((union > 0).sum(1), 1)
        return result

    @property
    def miou(self) -> float:
        """mIoU 0..1 of the set as it is."""
        return float(self.scores(np.ones((1, self.right.shape[0])))[0])


def name_of(neighbours: int) -> str:
    """What the bootstrap is called with runs of ``neighbours`` images."""
    return NAME if neighbours == 1 else NAME.replace("images resampled", f"images resampled in runs of {neighbours} neighbours")


def require_runs(images: int, neighbours: int) -> None:
    """Refuse runs that are nearly the whole set: every draw would be the same.

    Raises:
        DataError: fewer than ``LEAST_RUNS`` runs fit.
    """
    if neighbours > 1 and images < LEAST_RUNS * neighbours:
        raise DataError(
            f"runs of {neighbours} neighbours among {images} images: fewer than {LEAST_RUNS} runs say nothing of other images",
            remedy="lower compare.neighbours, or hold out more images",
        )


class ImageDraws:
    """Resamples of the images, the same for every cell that is asked.

    Raises:
        DataError: so few images that their runs would be all of them.

    Args:
        images: how many there are, in an order in which neighbours resemble each other where any do.
        draws: how many resamples.
        seed: of the draws.
        neighbours: images that are drawn together, as a run that begins anywhere and goes on at the front after the last (the circular
            block bootstrap of Politis and Romano): frames of one video are no independent images.
    """

    def __init__(self, images: int, draws: int, seed: int, neighbours: int = 1) -> None:
        require_runs(images, neighbours)
        rng = np.random.default_rng((seed, 0))
        runs = -(-images // neighbours)
        # One byte holds it: an image cannot come up more often than there are images, and of more than 255 none comes up 256 times.
        self.times: NDArray[np.uint8] = np.empty((draws, images), np.uint8)
        for start in range(0, draws, _CHUNK):
            part = self.times[start : start + _CHUNK]
            if neighbours == 1:
                part[:] = rng.multinomial(images, np.full(images, 1 / images), size=len(part))
                continue
            drawn = (rng.integers(images, size=(len(part), runs, 1)) + np.arange(neighbours)) % images
            places = drawn.reshape(len(part), -1)[:, :images] + images * np.arange(len(part))[:, None]
            part[:] = np.bincount(places.ravel(), minlength=part.size).reshape(part.shape)

    def scores(self, tallies: Tallies) -> Array:
        """mIoU 0..1 of one cell in every draw. Shape: (draws,)."""
        chunks = (self.times[start : start + _CHUNK] for start in range(0, len(self.times), _CHUNK))
        return np.concatenate([tallies.scores(chunk.astype(np.float64)) for chunk in chunks])


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its interval, in the unit of what was given; None where nothing could have come out otherwise."""

    difference: float
    low: float | None
    high: float | None
    p: float | None  # two-sided: twice the share of draws on the other side of zero


def paired_difference(observed: Array, resampled: Array | None, *, draws: int, seed: int) -> Estimate:
    """The mean over seeds of a paired difference, with its 95 % interval.

    Args:
        observed: (seeds,) difference of the two methods with each seed, on all images.
        resampled: (seeds, draws) the same on every draw of the images; None without counts: the interval then covers seeds alone.
        draws: how many; those of ``resampled`` where there are any.
        seed: of the draws of the seeds' part.

    With one seed the interval covers images alone; with one seed and no counts there is none.
    """
    mean = float(observed.mean())
    if resampled is None and len(observed) < 2:
        return Estimate(mean, None, None, None)
    drawn = mean + (np.zeros(draws) if resampled is None else image_part(observed, resampled)) + seed_part(observed, draws, seed)
    low, high = (float(end) for end in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    fewer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Estimate(mean, low, high, min(1.0, 2 * (fewer + 1) / (draws + 1)))


def image_part(observed: Array, resampled: Array) -> Array:
    """How far the mean over seeds moves with the images, in every draw, centred.

    Each seed's network errs on images of its own. That part of the movement is already in the spread between seeds, so with two
    seeds or more it is taken out here (the draws shrink to the variance that all seeds share) and not counted twice.

    Args:
        observed: (seeds,).
        resampled: (seeds, draws).

    Shape: (draws,).
    """
    moved: Array = resampled.mean(0) - resampled.mean()
    total = float(moved.var())
    if len(observed) < 2 or total == 0:
        return moved
    own = float((resampled - observed[:, None]).var(0, ddof=1).mean()) / len(observed)
    shared: Array = moved * np.sqrt(max(0.0, 1 - own / total))
    return shared


def seed_part(observed: Array, draws: int, seed: int) -> Array:
    """How far the mean over seeds could be off, in every draw: Student's t with n - 1 degrees of freedom, scaled by their spread.

    Zero for one seed. Shape: (draws,).
    """
    count = len(observed)
    if count < 2:
        return np.zeros(draws)
    drawn: Array = np.random.default_rng((seed, 1)).standard_t(count - 1, draws) * (observed.std(ddof=1) / np.sqrt(count))
    return drawn
