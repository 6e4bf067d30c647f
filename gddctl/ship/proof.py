"""Who proved that a file answers like its student: the chain of parity rungs from the file up, all of them passed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gddctl.core.artifact.manifest import Artifact
from gddctl.core.errors import UsageError, VerdictError
from gddctl.core.files import read_as
from gddctl.core.reports.parity import ParityReport, Rung

PARITY_NAME = "parity.json"


@dataclass(frozen=True)
class Proof:
    """The names on the way from a file to what it was proven against, the file first; empty: nobody proved it."""

    chain: tuple[str, ...] = ()
    emulated: bool = False

    def __bool__(self) -> bool:
        return bool(self.chain)


def read_parity(path: Path) -> ParityReport:
    """The report at ``path``.

    Raises:
        UsageError: no such file.
        ArtifactError: it is not a parity report.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such parity report", remedy="make one with: gddctl parity --ladder RUN --json > parity.json")
    return read_as(path, ParityReport.from_json, what="a parity report that this version reads", remedy="judge again")


def proof_of(artifact: Artifact, reports: list[ParityReport], first_file: str | None) -> Proof:
    """The chain of ``artifact``, up to the student's weights or to the first file that was made from them.

    Args:
        artifact: the file.
        reports: parity reports, of this student and perhaps of others.
        first_file: SHA-256 of the student's FP32 logits graph; somebody else's network has no bundle above it. Nothing below it is a
            beginning: an INT8 deploy graph that answers like its INT8 logits may still answer unlike the student.

    Raises:
        VerdictError: a rung on the way was judged and failed.
    """
    rungs = [rung for report in reports for rung in report.rungs]
    tops = {artifact.info.weights_sha256} | ({first_file} if first_file is not None else set())
    return _climb(artifact.sha256, rungs, tops, frozenset({artifact.sha256}))


def _climb(sha256: str, rungs: list[Rung], tops: set[str], seen: frozenset[str]) -> Proof:
    found = [rung for rung in rungs if rung.candidate_sha256 == sha256]
    if failed := [rung for rung in found if not rung.passed]:
        raise VerdictError(
            f"{failed[0].candidate}: does not answer like {failed[0].reference}, which it was made from ({failed[0].failures[0]})",
            remedy="a file that failed its gate is not shipped; export it again, or judge it by other limits: gddctl parity --gates FILE",
        )
    for rung in found:
        above = rung.reference_sha256
        if above in seen:
            continue
        if any(other.candidate_sha256 == above for other in rungs):
            upper = _climb(above, rungs, tops, seen | {above})
        else:
            upper = Proof((rung.reference,)) if above in tops else Proof()
        if upper:
            return Proof((rung.candidate, *upper.chain), rung.emulated or upper.emulated)
    return Proof()
