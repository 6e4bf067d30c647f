"""From trained cells to a comparison: rows, the pairs a reader asks for, and their intervals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import DataError
from gddctl.core.reports.comparison import REFERENCE, SAME_SECONDS, Arm, Bootstrap, Cell, Comparison, MethodRow, Pair, StepTimes, Teacher
from gddctl.prove.bootstrap import Array, ImageDraws, Tallies, name_of, paired_difference
from gddctl.prove.saturation import far_apart

SAME_SCORE = 1e-6  # between a cell's score and that of its counts: the same integers, divided in another order

Key = tuple[str, int, int]


def compare_cells(
    cells: Sequence[Cell],
    counts: Mapping[Key, NDArray[np.int64]],
    *,
    protocol: str,
    split: str,
    teacher: Teacher | None = None,
    own_teachers: Sequence[Teacher] = (),
    step_times: StepTimes | None = None,
    draws: int = 10_000,
    seed: int = 0,
    neighbours: int = 1,
    notes: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> Comparison:
    """Hold the arms of ``cells`` against each other. Lives in ``prove``: it judges, and needs numpy alone.

    Args:
        cells: done and failed ones, in any order; a cell that serves both budgets is given once for each.
        counts: by :attr:`Cell.key`, (images, K, K) of one cell, rows = label, columns = prediction, the same images in the same order
            for all. Each is asked for once, so that a mapping may read files. Where a cell's are missing, its pairs cover seeds alone.
        protocol: how the cells were scored, in words.
        split: "val" or "held-out training images".
        teacher: who taught.
        own_teachers: who taught single methods instead.
        step_times: the interleaved measurement.
        draws: of the bootstrap.
        seed: of the bootstrap.
        neighbours: images that are resampled together, in the order of ``counts``.
        notes: sentences to stand under the table.
        settings: by method, in words, where its name does not say them.

    Raises:
        DataError: counts of different images or classes, or counts that do not give the cell's score, or two budgets of seconds;
            the message names the cell.
    """
    rows = tuple(replace(row, settings=(settings or {}).get(row.arm.method, "")) for row in _rows(cells, step_times))
    _require_one_length(rows)
    judge = _judge({cell.key: cell for cell in cells if cell.scored}, counts, draws, seed, neighbours)
    return Comparison(
        protocol=protocol,
        split=split,
        images=judge.images,
        bootstrap=Bootstrap(name_of(neighbours), draws, seed, neighbours),
        teacher=teacher,
        step_times=step_times,
        rows=rows,
        pairs=tuple(pair for one, other in _asked(rows) if (pair := judge.pair(one, other)) is not None),
        notes=tuple(notes),
        own_teachers=tuple(own_teachers),
    )


def _rows(cells: Sequence[Cell], step_times: StepTimes | None) -> tuple[MethodRow, ...]:
    """One row per arm, group by group in order of appearance, the best mean first."""
    arms: dict[Arm, list[Cell]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, []).append(cell)
    groups = list(dict.fromkeys(arm.group for arm in arms))
    rows = [_row(arm, sorted(members, key=lambda cell: cell.seed), step_times) for arm, members in arms.items()]
    return tuple(sorted(rows, key=lambda row: (groups.index(row.arm.group), -(row.mean if row.mean is not None else -1.0))))


def _require_one_length(rows: Sequence[MethodRow]) -> None:
    """Equal seconds give each method one number of iterations; two mean that cells of two budgets came together."""
    lengths: dict[str, int] = {}
    for row in rows:
        arm = row.arm
        if arm.budget == "seconds" and lengths.setdefault(arm.method, arm.iterations) != arm.iterations:
            raise DataError(
                f"{arm.method}: {lengths[arm.method]} and {arm.iterations} iterations, both for equal seconds: expected one number",
                remedy="compare the cells of each budget of seconds in a folder of its own",
            )


def _row(arm: Arm, cells: Sequence[Cell], step_times: StepTimes | None) -> MethodRow:
    done = [cell for cell in cells if cell.scored]
    timed = step_times.of(arm.method) if step_times is not None else None
    steps = [cell.step_seconds for cell in done if cell.step_seconds is not None]
    seconds = [cell.seconds for cell in done if cell.seconds is not None]
    return MethodRow(
        arm=arm,
        scores=tuple((cell.seed, cell.miou) for cell in done if cell.miou is not None),
        failed=tuple((cell.seed, cell.error or "no score") for cell in cells if not cell.scored),
        seconds=statistics.fmean(seconds) if seconds else None,
        step_seconds=timed.seconds if timed is not None else statistics.median(steps) if steps else None,
        peak_memory_mb=max((cell.peak_memory_mb for cell in done if cell.peak_memory_mb is not None), default=None),
        extra_parameters=next((cell.extra_parameters for cell in done if cell.extra_parameters is not None), None),
        curves=tuple((cell.seed, cell.curve) for cell in done if cell.curve),
    )


def _asked(rows: Sequence[MethodRow]) -> Iterator[tuple[MethodRow, MethodRow]]:
    """Which arms are held against each other: see :attr:`Pair.kind`."""
    judged = set()
    for one, other in combinations(rows, 2):  # rows stand best first, so that differences between methods are not negative
        if one.arm.group == other.arm.group and one.arm.method != other.arm.method:
            judged.add(_trainings(one, other))
            yield (other, one) if one.arm.method == REFERENCE else (one, other)
    for method in dict.fromkeys(row.arm.method for row in rows):
        lengths = {row.arm.iterations: row for row in rows if row.arm.method == method}
        for shorter, longer in _lengths_asked(sorted(lengths)):
            yield lengths[longer], lengths[shorter]
    for row in rows:
        longest = max(_no_dearer(row, rows), key=lambda other: other.arm.iterations, default=None)
        if longest is not None and _trainings(longest, row) not in judged:  # a cell of two budgets is held against another once
            yield longest, row


def _trainings(one: MethodRow, other: MethodRow) -> frozenset[tuple[str, int]]:
    return frozenset((row.arm.method, row.arm.iterations) for row in (one, other))


def _lengths_asked(lengths: Sequence[int]) -> Sequence[tuple[int, int]]:
    """Pairs of ascending ``lengths``: neighbours, and the longest with the nearest that is far enough below it to tell of a ceiling.

    >>> _lengths_asked([1000, 2000, 2600])
    [(1000, 2000), (2000, 2600), (1000, 2600)]
    """
    far = [(length, lengths[-1]) for length in lengths if far_apart(lengths[-1], length)]
    return list(dict.fromkeys([*pairwise(lengths), *far[-1:]]))


def _no_dearer(row: MethodRow, rows: Sequence[MethodRow]) -> Iterator[MethodRow]:
    """Undistilled students of other groups that trained for longer than ``row`` and took as long, see ``SAME_SECONDS``."""
    cost = _cost(row)
    for other in rows:
        if other.arm.method == REFERENCE != row.arm.method and other.arm.group != row.arm.group and cost is not None:
            own = _cost(other)
            if own is not None and other.arm.iterations > row.arm.iterations and own <= cost * SAME_SECONDS:
                yield other


def _cost(row: MethodRow) -> float | None:
    """Seconds of a training: by the step where it was measured, since cells may have shared a machine."""
    return row.arm.iterations * row.step_seconds if row.step_seconds is not None else row.seconds


@dataclass(frozen=True)
class _Judge:
    """Every scored cell's mIoU, as it is and in every draw of the images."""

    observed: Mapping[Key, float]
    resampled: Mapping[Key, Array]  # (draws,); empty where no counts were given
    images: int
    draws: int
    seed: int

    def pair(self, one: MethodRow, other: MethodRow) -> Pair | None:
        """``one`` minus ``other`` over the seeds that both have; None without such a seed."""
        seeds = tuple(seed for seed in one.seeds if seed in other.seeds)
        if not seeds:
            return None
        ours, theirs = _keys(one, seeds), _keys(other, seeds)
        observed = np.array([self.observed[a] - self.observed[b] for a, b in zip(ours, theirs, strict=True)])
        counted = all(key in self.resampled for key in (*ours, *theirs))
        resampled = np.stack([self.resampled[a] - self.resampled[b] for a, b in zip(ours, theirs, strict=True)]) if counted else None
        estimate = paired_difference(100 * observed, None if resampled is None else 100 * resampled, draws=self.draws, seed=self.seed)
        return Pair(
            first=one.arm,
            second=other.arm,
            seeds=seeds,
            left_out=tuple(sorted(set(one.seeds) ^ set(other.seeds))),
            images=self.images if counted else 0,
            difference_points=estimate.difference,
            low_points=estimate.low,
            high_points=estimate.high,
            p=estimate.p,
        )


def _keys(row: MethodRow, seeds: Sequence[int]) -> list[Key]:
    return [(row.arm.method, seed, row.arm.iterations) for seed in seeds]


def _judge(cells: Mapping[Key, Cell], counts: Mapping[Key, NDArray[np.int64]], draws: int, seed: int, neighbours: int) -> _Judge:
    resampled: dict[Key, Array] = {}
    draws_of_images: ImageDraws | None = None
    first: tuple[Cell, NDArray[np.int64]] | None = None  # whose labels all others must have
    for key in sorted(cells):
        try:
            mine = counts[key]  # not asked for with "in": that reads a lazy mapping's file once more
        except KeyError:
            continue
        labels = mine.sum(2)  # (images, K) pixels by label
        if first is None:
            first, draws_of_images = (cells[key], labels), ImageDraws(len(mine), draws, seed, neighbours)
        _require_same_images(cells[key], labels, *first)
        tallies = Tallies.of(mine)
        _require_own_score(cells[key], tallies)
        assert draws_of_images is not None
        resampled[key] = draws_of_images.scores(tallies)
    observed = {key: cell.miou for key, cell in cells.items() if cell.miou is not None}
    return _Judge(observed, resampled, 0 if first is None else len(first[1]), draws, seed)


def _require_same_images(cell: Cell, labels: NDArray[np.int64], other: Cell, theirs: NDArray[np.int64]) -> None:
    """Counts of the same images have the same pixels by label, image by image."""
    if labels.shape != theirs.shape:
        what = f"counts of {labels.shape[0]} images and {labels.shape[1]} classes, expected {theirs.shape[0]} and {theirs.shape[1]}"
    elif (labels != theirs).any():
        image = int(np.flatnonzero((labels != theirs).any(1))[0])
        what = f"the labels of image {image} have other pixel counts than"
    else:
        return
    raise DataError(
        f"cell {_name(cell)}: {what} as in cell {_name(other)}", remedy="score both cells on the same images, in the same order"
    )


def _require_own_score(cell: Cell, tallies: Tallies) -> None:
    assert cell.miou is not None
    if abs(tallies.miou - cell.miou) > SAME_SCORE:
        raise DataError(
            f"cell {_name(cell)}: its counts give mIoU {tallies.miou:.6f}, its score is {cell.miou:.6f}", remedy="score the cell again"
        )


def _name(cell: Cell) -> str:
    return f"{cell.method}, seed {cell.seed}, {cell.iterations} iterations"
