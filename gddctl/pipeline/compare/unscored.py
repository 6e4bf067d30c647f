"""Cells that were trained and stand in no row, because the views of the table have not scored them: a reader is told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gddctl.core.artifact.card import is_bundle
from gddctl.core.config.compare import ViewsConfig
from gddctl.core.reports.comparison import Arm
from gddctl.pipeline.compare.cell_files import read_cell
from gddctl.pipeline.compare.plan import cell_folder, seeds_in


def unscored_notes(out: Path, arms: Iterable[Arm], views: ViewsConfig) -> tuple[str, ...]:
    """A note that counts them by method; none where every trained cell is scored.

    Args:
        out: the comparison's folder.
        arms: that were ever asked for.
        views: of the table.
    """
    missing: dict[str, int] = {}
    for method, iterations in dict.fromkeys((arm.method, arm.iterations) for arm in arms):  # an arm of two budgets is one
        folders = [cell_folder(out, method, seed, iterations) for seed in seeds_in(out, method, iterations)]
        left_out = sum(is_bundle(folder / "student") and read_cell(folder, views) is None for folder in folders)
        if left_out:
            missing[method] = missing.get(method, 0) + left_out
    if not missing:
        return ()
    named = ", ".join(f"{count} of {method}" for method, count in missing.items())
    return (f"Trained, but not scored as this table says, hence left out: {named}. A call that names their methods scores them.",)
