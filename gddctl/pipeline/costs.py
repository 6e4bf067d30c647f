"""What a candidate costs beside its answers: the size of its file, and its p95 where a bench of the same bytes is at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.files import read_as
from gddctl.core.reports.latency import LatencyReport
from gddctl.core.reports.parity import Rung

_NAME = "latency.json"


def with_costs(rung: Rung, path: Path, backend: str) -> Rung:
    """``rung`` with the costs of its candidate, the file or bundle at ``path``, which ran on ``backend``."""
    size = (path / WEIGHTS_NAME if path.is_dir() else path).stat().st_size
    return replace(rung, size_bytes=size, p95_ms=_p95(latency_near(path), rung, backend))


def latency_near(path: Path) -> LatencyReport | None:
    """The bench of the run folder that ``path`` lies in; None where there is none.

    Raises:
        ArtifactError: it cannot be read.
    """
    for folder in (path.resolve().parent, path.resolve().parent.parent):
        if (file := folder / _NAME).is_file():
            return read_as(file, LatencyReport.from_json, remedy="bench again")
    return None


def _p95(report: LatencyReport | None, rung: Rung, backend: str) -> float | None:
    """Of the same bytes, on the rung's own backend where that was timed; the time of an imitation is no measurement of the file."""
    rows = [row for row in report.rows if row.sha256 == rung.candidate_sha256 and row.load is None] if report is not None else []
    rows = [row for row in rows if row.batch == min(row.batch for row in rows)]  # a limit is on one image, or the nearest to it
    if rung.emulated:
        rows = [row for row in rows if row.backend != backend]
    same = [row.p95_ms for row in rows if row.backend == backend]
    return max(same or [row.p95_ms for row in rows], default=None)
