"""The end of a run in a few lines: models, numbers, verdict, next command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gddctl.core.files import read_json
from gddctl.core.reports.parity import ParityReport


@dataclass(frozen=True)
class Summary:
    """What a finished run shows."""

    out: Path
    report: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    failures: tuple[str, ...]  # broken parity limits
    following: str

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {
            "out": str(self.out),
            "report": str(self.report),
            "models": rows,
            "passed": not self.failures,
            "failures": list(self.failures),
        }


def summarise(out: Path, report: Path) -> Summary:
    """Read the run folder's reports."""
    scores = read_json(out / "eval.json")["models"]
    times = {row["sha256"]: row for row in read_json(out / "latency.json")["rows"]}
    parity = ParityReport.from_json(read_json(out / "parity.json"))
    baseline = scores["baseline"]["miou"]
    rows = []
    for name, score in scores.items():
        row = times.get(score["sha256"])
        delta = "" if name in ("teacher", "baseline") else f"{100 * (score['miou'] - baseline):+.2f}"
        rows.append(
            (name, f"{100 * score['miou']:.2f}", delta, f"{row['p50_ms']:.2f}" if row else "n/a", f"{row['p99_ms']:.2f}" if row else "n/a")
        )
    best = _fastest_that_passed(out, parity, times)
    return Summary(
        out=out,
        report=report,
        columns=("model", "mIoU %", "vs baseline", "p50 ms", "p99 ms"),
        rows=tuple(rows),
        failures=parity.failures,
        following=f"gddctl bench {best}" if best else f"gddctl parity {out / 'student'} {out / 'artifacts'}/FILE",
    )


def _fastest_that_passed(out: Path, parity: ParityReport, times: dict[str, Any]) -> Path | None:
    """The exported file with the lowest median among those whose rung passed."""
    passed = {rung.candidate_sha256 for rung in parity.rungs if rung.passed}
    files = {row["sha256"]: out / "artifacts" / row["file"] for row in read_json(out / "artifacts" / "manifest.json")["artifacts"]}
    candidates = [sha for sha in passed if sha in times and sha in files]
    return files[min(candidates, key=lambda sha: times[sha]["p50_ms"])] if candidates else None
