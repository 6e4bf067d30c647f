"""Cells that were not trained and scored by the same software on the same kind of device: a reader is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.reports.comparison import Cell
from gddctl.pipeline.compare.plan import cell_folder

_NAMED = 4  # cells that a note names of each kind; the rest is counted


def difference_notes(out: Path, cells: Sequence[tuple[Cell, Mapping[str, Any]]]) -> tuple[str, ...]:
    """A note on each thing in which scored cells differ that should not.

    Args:
        out: the comparison's folder.
        cells: each with everything in its file.
    """
    made = {cell.key: (cell, _made(out, cell, more)) for cell, more in cells if cell.scored}  # a cell of two budgets is one
    return tuple(note for what in ("device", "gddctl", "torch") if (note := _note(what, list(made.values()))))


def _made(out: Path, cell: Cell, more: Mapping[str, Any]) -> dict[str, str]:
    """What is known of how the cell came to be."""
    bundle = cell_folder(out, *cell.key) / "student"
    environment = dict(more.get("environment") or {})
    kind, model = more.get("device"), environment.get("gpu", environment.get("cpu"))  # the processor beside a GPU makes no numbers
    known = {
        "device": f"{kind}, {model}" if kind is not None and model is not None else kind,
        "gddctl": read_card(bundle).gddctl_version if is_bundle(bundle) else None,
        "torch": environment.get("torch"),
    }
    return {key: str(value) for key, value in known.items() if value is not None}


def _note(what: str, made: Sequence[tuple[Cell, Mapping[str, str]]]) -> str:
    by_value: dict[str, list[Cell]] = {}
    for cell, known in made:
        if what in known:
            by_value.setdefault(known[what], []).append(cell)
    if len(by_value) < 2:
        return ""
    shown = "; ".join(f"{value}: {', '.join(_named(cells))}" for value, cells in sorted(by_value.items(), key=lambda item: len(item[1])))
    return f"Cells differ in {_WORDS[what]} ({shown}): part of a difference between them may be that."


_WORDS = {"device": "the device", "gddctl": "the version of gddctl", "torch": "the version of torch"}


def _named(cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells[:_NAMED]:
        yield f"{cell.method} seed {cell.seed} ({cell.iterations} iterations)"
    if len(cells) > _NAMED:
        yield f"{len(cells) - _NAMED} more"
