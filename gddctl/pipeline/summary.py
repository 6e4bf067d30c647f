"""The end of a run in a few lines: models, numbers, verdict, next command."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gddctl.core.files import read_json
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.latency_choice import plain_times
from gddctl.core.reports.parity import ParityReport
from gddctl.core.reports.weak_teacher import BASELINE, STUDENT, weak_teacher

COLUMNS = ("model", "mIoU %", "vs baseline", "p50 ms", "p99 ms")


@dataclass(frozen=True)
class ModelLine:
    """One model of a run."""

    model: str
    miou: float  # 0..1
    gain_points: float | None  # mIoU over the baseline's; None for teacher and baseline
    p50_ms: float | None  # None: not measured
    p99_ms: float | None
    condition: str = ""  # of ``miou``: that it is of a teacher that is shown the label

    def cells(self) -> tuple[str, ...]:
        """For the terminal, in the order of COLUMNS."""
        gain = "" if self.gain_points is None else f"{self.gain_points:+.2f}"
        times = ("n/a" if value is None else f"{value:.2f}" for value in (self.p50_ms, self.p99_ms))
        model = f"{self.model}, {self.condition}" if self.condition else self.model
        return (model, f"{100 * self.miou:.2f}", gain, *times)


@dataclass(frozen=True)
class Summary:
    """What a finished run shows."""

    out: Path
    report: Path
    models: tuple[ModelLine, ...]
    failures: tuple[str, ...]  # broken parity limits
    following: str
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON form: scores 0..1, times in milliseconds, null where nothing was measured."""
        return {
            "out": str(self.out),
            "report": str(self.report),
            "models": [asdict(line) for line in self.models],
            "passed": not self.failures,
            "failures": list(self.failures),
            "warnings": list(self.warnings),
        }


def summarise(out: Path, report: Path) -> Summary:
    """Read the run folder's reports."""
    scores = read_json(out / "eval.json")["models"]
    times = plain_times(LatencyReport.from_json(read_json(out / "latency.json")).rows)
    parity = ParityReport.from_json(read_json(out / "parity.json"))
    baseline = scores["baseline"]["miou"]
    models = []
    for name, score in scores.items():
        row = times.get(score["sha256"])
        gain = None if name in ("teacher", "baseline") else 100 * (score["miou"] - baseline)
        condition = EvalReport.from_json(score).condition
        models.append(ModelLine(name, score["miou"], gain, row.p50_ms if row else None, row.p99_ms if row else None, condition))
    best = _fastest_that_passed(out, parity, times)
    return Summary(
        out=out,
        report=report,
        models=tuple(models),
        failures=parity.failures,
        warnings=_warnings(scores),
        following=f"gddctl bench {best}" if best else f"gddctl parity {out / 'student'} {out / 'artifacts'}/FILE",
    )


def _warnings(scores: dict[str, Any]) -> tuple[str, ...]:
    teacher, baseline, student = (EvalReport.from_json(scores[role]) for role in ("teacher", "baseline", "student"))
    return weak_teacher(teacher, {BASELINE: baseline, STUDENT: student})


def _fastest_that_passed(out: Path, parity: ParityReport, times: dict[str, LatencyRow]) -> Path | None:
    """The exported file with the lowest median among those whose rungs passed."""
    passed = {rung.candidate_sha256 for rung in parity.rungs if parity.verdict_of(rung.candidate_sha256)}
    files = {row["sha256"]: out / "artifacts" / row["file"] for row in read_json(out / "artifacts" / "manifest.json")["artifacts"]}
    candidates = [sha for sha in passed if sha in times and sha in files]
    return files[min(candidates, key=lambda sha: times[sha].p50_ms)] if candidates else None
