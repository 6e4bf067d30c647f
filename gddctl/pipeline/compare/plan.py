"""The cells of a comparison: which trainings, in which order, in which folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gddctl.core.reports.comparison import Arm
from gddctl.pipeline.compare.methods import Compared

CELLS = "cells"


@dataclass(frozen=True)
class PlannedCell:
    """One training: a method, a seed, a number of iterations. Cells of several budgets may be the same training."""

    compared: Compared
    seed: int
    iterations: int

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.compared.name} seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Where it stands."""
        return cell_folder(out, self.compared.name, self.seed, self.iterations)


def cell_folder(out: Path, method: str, seed: int, iterations: int) -> Path:
    """The folder of a cell; a colon becomes a point, which no label holds."""
    return out / CELLS / f"{method.replace(':', '.')}-i{iterations}-s{seed}"


def seeds_in(out: Path, method: str, iterations: int) -> tuple[int, ...]:
    """Seeds of which there is a folder, ascending."""
    stem = cell_folder(out, method, 0, iterations).name[:-1]
    found = (item.name.removeprefix(stem) for item in (out / CELLS).glob("*") if item.name.startswith(stem))
    return tuple(sorted(int(seed) for seed in found if seed.isdigit()))


def planned_cells(methods: Sequence[Compared], iterations: Mapping[str, int], seeds: Sequence[int]) -> tuple[PlannedCell, ...]:
    """Every method of the first seed, then of the second: a comparison that is stopped has whole seeds to show.

    Args:
        methods: in the order in which they are trained.
        iterations: of each method; one that is missing cannot be trained.
        seeds: in order.
    """
    return tuple(PlannedCell(each, seed, iterations[each.name]) for seed in seeds for each in methods if each.name in iterations)


def arms_of(methods: Sequence[Compared], iterations: Mapping[str, int], *, timed: bool) -> tuple[Arm, ...]:
    """The sides of the comparison that these methods are; ``timed``: the iterations come from a budget of seconds."""
    return tuple(Arm(each.name, iterations[each.name], "seconds" if timed else "iterations") for each in methods if each.name in iterations)
