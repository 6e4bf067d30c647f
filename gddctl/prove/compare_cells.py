"""From trained cells to a comparison: rows, the pairs a reader asks for, and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gddctl.core.reports.comparison import Cell, Comparison, StepTimes, Teacher


def compare_cells(
    cells: Sequence[Cell],
    counts: Mapping[tuple[str, int, int], NDArray[np.int64]],
    *,
    protocol: str,
    split: str,
    teacher: Teacher | None = None,
    step_times: StepTimes | None = None,
    draws: int = 10_000,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Comparison:
    """Hold the arms of ``cells`` against each other.

    Args:
        cells: done and failed ones, in any order; a cell that serves both budgets is given once for each.
        counts: by :attr:`Cell.key`, (images, K, K) of one cell, rows = label, columns = prediction, the same images in the same order
            for all. Each is asked for once, so that a mapping may read files. A cell that is not there counts with its score alone.
        protocol: how the cells were scored, in words.
        split: "val" or "held-out training images".
        teacher: who taught.
        step_times: the interleaved measurement.
        draws: of the bootstrap.
        seed: of the bootstrap.
        notes: sentences to stand under the table.

    Raises:
        DataError: counts of different images or classes, or counts that do not give the cell's score; the message names the cell.
    """
    raise NotImplementedError
