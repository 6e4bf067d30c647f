"""A parity report together with where its models lie, so that a failure can be looked into."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gddctl.core.reports.drift import DriftReport
from gddctl.core.reports.parity import ParityReport
from gddctl.data.dataset import SegDataset
from gddctl.pipeline.ladder_members import member_of
from gddctl.prove.locate import locate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """A comparison or a ladder, judged."""

    report: ParityReport
    paths: Mapping[str, Path]  # by SHA-256
    dataset: SegDataset
    pair: tuple[Path, Path] | None = None  # the two models, where there were no more

    @property
    def suspects(self) -> tuple[Path, Path] | None:
        """Reference and candidate of what is to be looked into: the pair, or the first rung that failed."""
        if self.pair is not None:
            return self.pair
        failed = next((rung for rung in self.report.rungs if not rung.passed), None)
        return None if failed is None else (self.paths[failed.reference_sha256], self.paths[failed.candidate_sha256])

    @property
    def following(self) -> str | None:
        """The next useful command."""
        if self.report:
            judged = [rung.candidate_sha256 for rung in self.report.rungs if not rung.emulated]
            return f"gddctl bench {self.paths[judged[-1]]}" if judged else None
        suspects = self.suspects
        if suspects is None or any(path.suffix != ".onnx" for path in suspects):
            return None
        return f"gddctl parity {suspects[0]} {suspects[1]} --locate"

    def locate(self) -> DriftReport | None:
        """The first tensor that drifts between the suspects; None where nothing failed.

        Raises:
            ArtifactError: one of the two is no ONNX file.
            EnvironmentMissing: onnx is not installed.
        """
        if self.suspects is None:
            return None
        reference, candidate = self.suspects

        def progress(done: int, of: int) -> None:
            log.debug("locate: %d/%d tensors", done, of)

        return locate(member_of(reference), member_of(candidate), self.dataset, progress=progress)
