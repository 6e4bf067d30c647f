"""Which training images calibrate and which are set aside to score on: by seed, balanced over classes, no content twice."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.calibration import CalibrationImage, CalibrationRecord, ChosenBy
from gddctl.core.classes import IGNORE
from gddctl.core.config.sections import CalibrationConfig
from gddctl.core.errors import ArtifactError, DataError
from gddctl.data.dataset import SegDataset
from gddctl.data.subset import Subset

log = logging.getLogger(__name__)

_POOL = 4  # images whose labels are read, to each that is wanted: enough to meet rare classes without reading a large set whole
_SET_ASIDE = 4  # of a small set, at most one image in so many is set aside to score on


@dataclass(frozen=True)
class Selection:
    """Indices into a training set; calibration and held-out images share no content."""

    calibration: tuple[int, ...]  # ascending
    held_out: tuple[int, ...]  # in drawn order; the first few are as good a sample as all
    images: tuple[CalibrationImage, ...]  # of ``calibration``
    scored_on: tuple[CalibrationImage, ...]  # of ``held_out``
    chosen_by: ChosenBy


def select_images(dataset: SegDataset, config: CalibrationConfig, *, held_out: SegDataset | None = None) -> Selection:
    """Draw the images by ``config.seed``.

    The set is shuffled. Its last ``config.scored_on`` images, at most a quarter of the set, are set aside to score on. From the others
    ``config.images`` are taken: in drawn order, or, where ``config.balanced`` and the labels show any class, so that rare classes are
    seen: again and again an image that prominently shows the class which the chosen ones show least, among four times as many as are
    wanted.

    Args:
        dataset: training images.
        config: how many, by which seed, balanced or not.
        held_out: the split that final scores are measured on; an image of it among the chosen is refused by content.

    Raises:
        DataError: there is no image, or one is also in ``held_out``.
    """
    available = len(dataset)
    if available == 0:
        raise DataError("calibration needs training images, the split is empty", remedy="name the dataset with --data")
    order = [int(index) for index in np.random.default_rng(config.seed).permutation(available)]
    aside = min(config.scored_on, available // _SET_ASIDE)
    drawn, reserved = order[: available - aside], order[available - aside :]
    chosen_by: ChosenBy = "seed"
    if config.balanced and len(drawn) > config.images:
        pool = drawn[: _POOL * config.images]
        shown = prominent(np.stack([_shares(dataset[index].label, len(dataset.classes)) for index in pool]))
        if shown.any():
            drawn, chosen_by = [pool[place] for place in rarest_first(shown)] + drawn[len(pool) :], "classes"
    seen = set[str]()
    taken = _take(dataset, drawn, config.images, seen)
    taken.sort()
    rest = _take(dataset, reserved, aside, seen)
    selection = Selection(
        calibration=tuple(index for index, _ in taken),
        held_out=tuple(index for index, _ in rest),
        images=tuple(image for _, image in taken),
        scored_on=tuple(image for _, image in rest),
        chosen_by=chosen_by,
    )
    _refuse_overlap((*selection.images, *selection.scored_on), held_out)
    return selection


def held_out_images(dataset: SegDataset, record: CalibrationRecord) -> Subset:
    """The training images that ``record`` set aside: none of them set its ranges.

    Raises:
        ArtifactError: ``dataset`` no longer holds one of them, or its content is another.
        DataError: none was set aside.
    """
    if not record.scored_on:
        raise DataError("no training image was left to score on", remedy="give a larger training set, at least four images")
    places = {dataset.name(index): index for index in range(len(dataset))}
    for image in record.scored_on:
        if image.name not in places or dataset.content_sha256(places[image.name]) != image.sha256:
            raise ArtifactError(f"calibration record: training image '{image.name}' is gone or was changed", remedy="calibrate again")
    return Subset(dataset, [places[image.name] for image in record.scored_on])


def rarest_first(shown: NDArray[np.bool_]) -> list[int]:
    """Every row once: each next one shows the class that earlier rows show least.

    Of classes shown equally often the one that is rarer overall goes first, then the lower id; of its rows the first. Rows without any
    class come last.

    Shape: (N, K) -> N indices.
    """
    left = shown.copy()
    overall, seen = shown.sum(axis=0), np.zeros(shown.shape[1], np.int64)
    order: list[int] = []
    while left.any():
        waiting = np.flatnonzero(left.any(axis=0))
        rarest = min(waiting, key=lambda k: (seen[k], overall[k], k))
        row = int(np.argmax(left[:, rarest]))
        order.append(row)
        seen += shown[row]
        left[row] = False
    taken = set(order)
    return order + [row for row in range(len(shown)) if row not in taken]


def prominent(shares: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an image shows a class at least as large as the average image that has it: in street scenes nearly all have every class.

    Shape: (N, K) -> (N, K).
    """
    having = np.count_nonzero(shares, axis=0)
    return np.asarray((shares > 0) & (shares * having >= shares.sum(axis=0)))


def _shares(label: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Pixels of each class, of a million. Shape: (H, W) -> (K,). Whole numbers, so that no rounding decides between equal images."""
    counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)[:classes].astype(np.int64)
    return np.asarray(counts * 1_000_000 // label.size)


def _take(dataset: SegDataset, order: Iterable[int], wanted: int, seen: set[str]) -> list[tuple[int, CalibrationImage]]:
    """The first ``wanted`` images of ``order`` whose content is not in ``seen``, which grows by theirs."""
    taken: list[tuple[int, CalibrationImage]] = []
    for index in order:
        if len(taken) == wanted:
            break
        sha256 = dataset.content_sha256(index)
        if sha256 in seen:
            log.warning("calibrate: '%s' shows what another chosen image shows; left out", dataset.name(index))
            continue
        seen.add(sha256)
        taken.append((index, CalibrationImage(dataset.name(index), sha256)))
    return taken


def _refuse_overlap(images: Sequence[CalibrationImage], held_out: SegDataset | None) -> None:
    if held_out is None:
        return
    seen = {held_out.content_sha256(index): held_out.name(index) for index in range(len(held_out))}
    for image in images:
        if image.sha256 in seen:
            raise DataError(
                f"calibration image '{image.name}' is also in the held-out split, as '{seen[image.sha256]}'",
                remedy="calibrate on training images only; see: gddctl data check",
            )
