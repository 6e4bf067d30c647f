"""From the cells in a folder to ``comparison.json`` and its page: everything that was ever asked for and is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gddctl.core.config.compare import ViewsConfig
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import ArtifactError
from gddctl.core.files import write_json
from gddctl.core.reports.comparison import COMPARISON_NAME, Arm, Cell, Comparison, Teacher
from gddctl.pipeline.compare.alike import difference_notes
from gddctl.pipeline.compare.cell_files import read_cell, read_counts
from gddctl.pipeline.compare.ground import split_words
from gddctl.pipeline.compare.labels import settings_in_words
from gddctl.pipeline.compare.plan import cell_folder, seeds_in
from gddctl.pipeline.compare.start import start_notes
from gddctl.pipeline.compare.step_times import Recorded
from gddctl.pipeline.compare.unscored import unscored_notes
from gddctl.prove.compare_cells import compare_cells
from gddctl.report.comparison import write_comparison_page

Key = tuple[str, int, int]


@dataclass(frozen=True)
class Result:
    """A comparison and where it was written."""

    comparison: Comparison
    json: Path
    page: Path


def write_result(
    out: Path,
    config: RunConfig,
    arms: Sequence[Arm],
    recorded: Recorded | None,
    teacher: Teacher | None,
    own_teachers: Sequence[Teacher],
    notes: Sequence[str],
    failed: Sequence[Cell] = (),
) -> Result | None:
    """Hold the cells of ``arms`` against each other, ``failed`` ones without a folder beside them; None where not one has ended.

    Raises:
        ArtifactError: a cell's file is damaged, or its counts are of other images.
    """
    views = config.compare.views
    found = [*_cells(out, arms, views), *((cell, {}) for cell in failed)]
    if not found:
        return None
    shown = next(filter(None, (more.get("protocol") for cell, more in found if cell.state == "done")), None)
    common, *own = (None if one is None else _protocol_if_other(one, shown) for one in (teacher, *own_teachers))
    comparison = compare_cells(
        [cell for cell, _ in found],
        _Counts(out, {cell.key for cell, _ in found if cell.scored}, views),
        protocol=f"{shown or 'full label resolution'}, weights of the last step",
        split=split_words(config.data),
        teacher=common,
        own_teachers=[one for one in own if one is not None],
        step_times=None if recorded is None else recorded.table(),
        neighbours=config.compare.neighbours,
        notes=(*notes, *start_notes(config), *difference_notes(out, found), *unscored_notes(out, arms, views)),
        settings=settings_in_words(out),
    )
    path = out / COMPARISON_NAME
    write_json(path, comparison.to_json())
    return Result(comparison, path, write_comparison_page(out))


def _protocol_if_other(teacher: Teacher, cells: object) -> Teacher:
    """What is said once of all needs no saying beside the teacher."""
    return replace(teacher, protocol="") if teacher.protocol == cells else teacher


def _cells(out: Path, arms: Sequence[Arm], views: ViewsConfig) -> Iterator[tuple[Cell, dict[str, object]]]:
    """Cells that have ended, well or not, by the score of these views; one that serves two budgets comes once for each."""
    for arm in arms:
        for seed in seeds_in(out, arm.method, arm.iterations):
            read = read_cell(cell_folder(out, arm.method, seed, arm.iterations), views)
            if read is not None:
                yield replace(read[0], budget=arm.budget), read[1]


class _Counts(Mapping[Key, NDArray[np.int64]]):
    """Counts by cell, read when asked for; all must be of the same images."""

    def __init__(self, out: Path, keys: set[Key], views: ViewsConfig) -> None:
        self._out, self._keys, self._views = out, keys, views
        self._names: tuple[str, ...] | None = None

    def __getitem__(self, key: Key) -> NDArray[np.int64]:
        if key not in self._keys:
            raise KeyError(key)
        folder = cell_folder(self._out, *key)
        counts, names = read_counts(folder, self._views)
        self._names = self._names or names
        if names != self._names:
            raise ArtifactError(
                f"{folder}: scored on other images than the cells before it", remedy="remove the folder: the cell is trained anew"
            )
        return counts

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
