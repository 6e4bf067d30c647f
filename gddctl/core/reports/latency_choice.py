"""Which row of a latency report a single number speaks of, where there are several of one file."""

from __future__ import annotations

from collections.abc import Iterable

from gddctl.core.reports.latency import LatencyRow


def plain_rows(rows: Iterable[LatencyRow]) -> list[LatencyRow]:
    """Per file and backend the row of the smallest batch, one call after another; waiting under load is no time of the model."""
    found: dict[tuple[str, str], LatencyRow] = {}
    for row in rows:
        best = found.get((row.sha256, row.backend))
        if row.load is None and (best is None or row.batch < best.batch):
            found[(row.sha256, row.backend)] = row
    return list(found.values())


def plain_times(rows: Iterable[LatencyRow]) -> dict[str, LatencyRow]:
    """:func:`plain_rows` by SHA-256; of several backends the one that was measured first."""
    found: dict[str, LatencyRow] = {}
    for row in plain_rows(rows):
        found.setdefault(row.sha256, row)
    return found
