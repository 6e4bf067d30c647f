"""What is known about one model, gathered for its card: from the bundle or a file, from its exports, and from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gddctl.core.artifact.calibration import CalibrationRecord
from gddctl.core.artifact.card import Card
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import ClassTable
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.parity import ParityReport, Rung


@dataclass(frozen=True)
class FileFacts:
    """One exported file, as its manifest row or its own metadata tells."""

    file: str
    sha256: str
    bytes: int | None
    graph: str
    precision: str
    target: str
    census: Mapping[str, int] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    calibration_sha256: str | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> FileFacts:
        """From a row of ``manifest.json``."""
        return cls(
            file=str(row["file"]),
            sha256=str(row["sha256"]),
            bytes=row.get("bytes"),
            graph=str(row.get("graph")),
            precision=str(row.get("precision")),
            target=str(row.get("target")),
            census=row.get("census") or {},
            kept=tuple(row.get("kept") or ()),
            calibration_sha256=row.get("calibration_sha256"),
        )

    @classmethod
    def of_info(cls, file: str, sha256: str, size: int | None, info: ModelInfo) -> FileFacts:
        """From what the file says of itself."""
        return cls(file, sha256, size, info.graph, info.precision, info.target, dict(info.census), info.kept, info.calibration_sha256)


@dataclass(frozen=True)
class Known:
    """Everything at hand about one model; what is None or empty is told as not measured, never guessed. ``card`` or ``info`` is there."""

    card: Card | None = None
    info: ModelInfo | None = None  # of a file, where there is no card
    files: tuple[FileFacts, ...] = ()
    scores: Mapping[str, EvalReport] = field(default_factory=dict)  # by SHA-256 of the model
    parity: ParityReport | None = None
    latency: LatencyReport | None = None
    calibration: CalibrationRecord | None = None

    @property
    def score(self) -> EvalReport | None:
        """Of the model itself: measured beside it, else what its card says."""
        found = self.scores.get(self.card.weights_sha256 if self.card else "")
        if found is None and self.card is not None and self.card.evaluation is not None:
            return EvalReport.from_json(self.card.evaluation)
        return found or next((self.scores[item.sha256] for item in self.files if item.sha256 in self.scores), None)

    @property
    def classes(self) -> ClassTable:
        """The classes."""
        return self.source.classes

    @property
    def preprocess(self) -> PreprocessSpec:
        """How an image becomes the input."""
        return self.source.preprocess

    def rungs_of(self, sha256: str) -> tuple[Rung, ...]:
        """Every comparison of a file with what it was made from."""
        return tuple(rung for rung in self.parity.rungs if rung.candidate_sha256 == sha256) if self.parity is not None else ()

    def times_of(self, sha256: str) -> tuple[LatencyRow, ...]:
        """Every measurement of its latency."""
        return tuple(row for row in self.latency.rows if row.sha256 == sha256) if self.latency is not None else ()

    @property
    def source(self) -> Card | ModelInfo:
        """The card; where there is none, what the file says of itself."""
        found = self.card or self.info
        assert found is not None, "a model card is of a bundle or of a file"
        return found
