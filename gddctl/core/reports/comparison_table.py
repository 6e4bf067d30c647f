"""A comparison as tables of words: the same cells on the terminal and on the page."""

from __future__ import annotations

from dataclasses import dataclass

from gddctl.core.reports.comparison import Comparison, MethodRow, Pair, Teacher
from gddctl.core.reports.comparison_words import names_of

MISSING = "-"
_COLUMNS = ("method", "mIoU %", "std", "vs none, points", "95 % interval", "p", "p Holm", "seeds", "failed", "iterations", "s per step")
_COSTS = ("training s", "peak MB", "extra parameters")


@dataclass(frozen=True)
class Table:
    """Columns and rows of words, as ``Output.table`` takes them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def method_table(comparison: Comparison) -> Table:
    """One line per arm: mean, spread over seeds, paired difference to no distillation, and what it costs. The teachers stand last."""
    names = names_of(comparison)
    rows = [(f"{names[row.arm]}{row.settings and f': {row.settings}'}", *_line(comparison, row)) for row in comparison.rows]
    teachers = [*([comparison.teacher] if comparison.teacher is not None else []), *comparison.own_teachers]
    return Table((*_COLUMNS, *_COSTS), (*rows, *map(_teacher_line, teachers)))


def pair_table(comparison: Comparison) -> Table:
    """One line per pair, with its outcome."""
    names = names_of(comparison)
    rows = [
        (f"{names[pair.first]} - {names[pair.second]}", *_difference(comparison, pair), str(len(pair.seeds)), comparison.outcome(pair))
        for pair in comparison.pairs
    ]
    return Table(("pair", "points", "95 % interval", "p", "p Holm", "seeds", "outcome"), tuple(rows))


def _line(comparison: Comparison, row: MethodRow) -> tuple[str, ...]:
    pair = comparison.against_none(row)
    difference = (MISSING,) * 4 if pair is None else _difference(comparison, pair)
    return (
        MISSING if row.mean is None else f"{100 * row.mean:.2f}",
        MISSING if row.std_points is None else f"{row.std_points:.2f}",
        *difference,
        str(len(row.scores)),
        str(len(row.failed)),
        str(row.arm.iterations),
        MISSING if row.step_seconds is None else f"{row.step_seconds:.4g}",
        _seconds(row.seconds),
        MISSING if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}",
        MISSING if row.extra_parameters is None else f"{row.extra_parameters:,}",
    )


def _teacher_line(teacher: Teacher) -> tuple[str, ...]:
    condition = f" {teacher.condition}" if teacher.condition and teacher.miou is not None else ""
    whose = f" of {', '.join(teacher.methods)}" if teacher.methods else ""
    score = MISSING if teacher.miou is None else f"{100 * teacher.miou:.2f}"
    blank = [MISSING] * (len(_COLUMNS) - 2)
    return (f"teacher{whose} {teacher.name}{condition}", score, *blank, _seconds(teacher.seconds), *[MISSING] * (len(_COSTS) - 1))


def _difference(comparison: Comparison, pair: Pair) -> tuple[str, str, str, str]:
    adjusted = comparison.p_holm(pair)
    ends = MISSING if pair.low_points is None else f"{pair.low_points:+.2f} to {pair.high_points:+.2f}"
    return (f"{pair.difference_points:+.2f}", ends, _p(pair.p), _p(adjusted))


def _seconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _p(value: float | None) -> str:
    return MISSING if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
