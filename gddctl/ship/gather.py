"""What is going into a release: the files of one student, the FP32 deploy graph that judges them, and what was measured of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from gddctl.core.artifact.calibration import CalibrationRecord
from gddctl.core.artifact.card import Card, is_bundle
from gddctl.core.artifact.card_io import read_card, require_plain
from gddctl.core.artifact.manifest import MANIFEST_NAME, Artifact, listed_files, verify_file
from gddctl.core.errors import ArtifactError, GddctlError, UsageError
from gddctl.core.files import read_optional
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport
from gddctl.core.reports.parity import ParityReport
from gddctl.prove.subject import label_of_info
from gddctl.runtime.describe import ENGINE_SUFFIX, read_info, require_model
from gddctl.ship.proof import PARITY_NAME, read_parity

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Cargo:
    """What ships, and what is known about it."""

    artifacts: tuple[Artifact, ...]  # sorted by file name
    reference: Artifact  # the FP32 deploy graph; it need not ship
    card: Card | None  # of the bundle, where there is one
    parity: tuple[ParityReport, ...]
    latency: LatencyReport | None
    scores: dict[str, EvalReport]  # by SHA-256
    calibration: CalibrationRecord | None

    @property
    def name(self) -> str:
        """The student's name."""
        return self.card.name if self.card is not None else self.reference.info.name

    @property
    def proofs(self) -> ParityReport | None:
        """What parity said of the files that ship and of those they were made from; None where it said nothing."""
        known = {item.sha256 for item in self.artifacts}
        every = list(dict.fromkeys(rung for report in self.parity for rung in report.rungs))
        while above := {rung.reference_sha256 for rung in every if rung.candidate_sha256 in known} - known:
            known |= above
        rungs = tuple(rung for rung in every if rung.candidate_sha256 in known)
        labels = {label_of_info(item.info, item.format) for item in self.artifacts}
        skipped = tuple(item for report in self.parity for item in report.skipped if item.candidate in labels)
        return ParityReport(rungs, skipped) if rungs or skipped else None

    @property
    def timings(self) -> LatencyReport | None:
        """Measured latency of the files that ship, without the words that were typed; None where there is none."""
        known = {item.sha256 for item in self.artifacts}
        rows = tuple(row for row in self.latency.rows if row.sha256 in known) if self.latency is not None else ()
        return replace(self.latency, rows=rows, raw_file=None, command=(), skipped=()) if self.latency is not None and rows else None


def gather(sources: Sequence[Path], *, run: Path | None, parity: Path | None) -> Cargo:
    """The deploy graphs and engines exported from a bundle, or the files that were named.

    Args:
        sources: one bundle folder, or exported files of one student.
        run: a run folder to read parity, latency and scores from; None: the one that the sources lie in.
        parity: a parity report, besides the run's.

    Raises:
        UsageError: nothing to ship, a source twice, no such run folder, or no FP32 deploy graph to judge by.
        ArtifactError: a file is damaged, or the files are of different students.
    """
    for path in sources:
        require_model(path)
    bundles = [path for path in sources if path.is_dir()]
    if bundles and len(sources) > 1:
        raise UsageError(
            f"{bundles[0]}: a bundle ships with everything exported from it, so it comes alone",
            remedy="name the bundle, or name the files",
        )
    found = exported_from(bundles[0]) if bundles else [artifact_at(path) for path in sources]
    chosen = tuple(sorted(found, key=lambda item: item.path.name))
    _require_plain_names(chosen)
    _require_one_student(chosen)
    if run is not None and not run.is_dir():
        raise UsageError(f"{run}: no such run folder", remedy="leave --run out, or name the folder with parity.json")
    home = run or _home_of(chosen[0].path)
    card = read_card(bundles[0]) if bundles else _card_beside(home, chosen[0])
    reports = [read_parity(parity)] if parity is not None else []
    if (home / PARITY_NAME).is_file():
        reports.append(read_parity(home / PARITY_NAME))
    scores = read_optional(home / "eval.json", lambda value: {k: EvalReport.from_json(v) for k, v in value["models"].items()}) or {}
    return Cargo(
        artifacts=chosen,
        reference=_reference(chosen),
        card=card,
        parity=tuple(reports),
        latency=read_optional(home / "latency.json", LatencyReport.from_json),
        scores={report.sha256: report for report in scores.values()},
        calibration=_calibration(chosen),
    )


def exported_from(bundle: Path) -> list[Artifact]:
    """The deploy graphs and their engines in ``artifacts/`` beside ``bundle``, made from its very weights.

    Raises:
        UsageError: nothing was exported, or no deploy graph.
        ArtifactError: what lies there was made from other weights.
    """
    card = read_card(bundle)
    require_plain(bundle, card, what="shipped")
    folder = bundle.resolve().parent / "artifacts"
    if not (folder / MANIFEST_NAME).is_file():
        raise UsageError(
            f"{bundle}: nothing was exported from it yet (no {folder / MANIFEST_NAME})", remedy=f"first: gddctl export {bundle}"
        )
    every = [artifact_at(path) for path in listed_files(folder)]
    own = [item for item in every if item.info.weights_sha256 == card.weights_sha256]
    if not own:
        raise ArtifactError(
            f"{folder}: holds files of weights {every[0].info.weights_sha256[:12]}…, but {bundle} holds {card.weights_sha256[:12]}…",
            remedy=f"the student was trained again since; export it again: gddctl export {bundle}",
        )
    if not (deploy := [item for item in own if item.graph == "deploy"]):
        raise UsageError(f"{folder}: holds no deploy graph of {bundle}", remedy=f"export it again: gddctl export {bundle}")
    return deploy


def artifact_at(path: Path) -> Artifact:
    """The exported file at ``path``, its bytes checked against the manifest beside it."""
    return Artifact(path, verify_file(path), "engine" if path.suffix == ENGINE_SUFFIX else "onnx", read_info(path))


def _require_one_student(artifacts: Sequence[Artifact]) -> None:
    first, names = artifacts[0], [item.path.name for item in artifacts]
    for item in artifacts:
        if item.info.weights_sha256 != first.info.weights_sha256:
            raise ArtifactError(
                f"{item.path}: made from weights {item.info.weights_sha256[:12]}…, "
                f"but {first.path.name} from {first.info.weights_sha256[:12]}…: two students",
                remedy="a release is of one student; ship each on its own",
            )
        if (item.info.preprocess, item.info.classes.names) != (first.info.preprocess, first.info.classes.names):
            raise ArtifactError(
                f"{item.path}: other preprocessing or classes than {first.path.name}", remedy="export both again, from one bundle"
            )
        if names.count(item.path.name) > 1:
            raise UsageError(f"{item.path}: two files of that name", remedy="name each file once, and rename one of them")


def _require_plain_names(artifacts: Sequence[Artifact]) -> None:
    """A file's name stands in shell commands, container recipes and units of the release, which all quote otherwise."""
    for item in artifacts:
        if wrong := sorted({letter for letter in item.path.name if not (letter.isalnum() or letter in "._+=@-")}):
            raise UsageError(
                f"{item.path}: {''.join(wrong)!a} in the name of a file, expected letters, digits and . _ + = @ -",
                remedy="ship a copy of another name; its folder may be called anything",
            )


def _reference(artifacts: Sequence[Artifact]) -> Artifact:
    """The FP32 deploy graph of the same student: one that ships, else one that lies beside."""
    weights = artifacts[0].info.weights_sha256
    shipped = [item for item in artifacts if _is_reference(item, weights)]
    if shipped:
        return shipped[0]
    for path in sorted({other for item in artifacts for other in item.path.resolve().parent.glob("*.onnx")}):
        try:
            beside = artifact_at(path)
        except GddctlError as error:
            log.debug("%s: not the FP32 deploy graph (%s)", path, error)
            continue
        if _is_reference(beside, weights):
            return beside
    raise UsageError(
        f"{artifacts[0].path}: no FP32 deploy graph of this student beside it, so nothing tells what the golden mask is",
        remedy="name it too, or export it: gddctl export BUNDLE --precision fp32",
    )


def _is_reference(item: Artifact, weights: str) -> bool:
    info = item.info
    return (info.weights_sha256, info.precision, info.graph, item.format) == (weights, "fp32", "deploy", "onnx")


def _home_of(artifact: Path) -> Path:
    """The run folder that a file lies in, by the layout that ``run`` and ``export`` write; else its own folder."""
    folder = artifact.resolve().parent
    return folder.parent if folder.name == "artifacts" else folder


def _card_beside(home: Path, artifact: Artifact) -> Card | None:
    for place in sorted(home.iterdir()):
        with suppress(OSError, GddctlError):  # unreadable, or somebody else's
            if is_bundle(place) and (card := read_card(place)).weights_sha256 == artifact.info.weights_sha256:
                return card
    return None


def _calibration(artifacts: Sequence[Artifact]) -> CalibrationRecord | None:
    """The record that the INT8 files name, where it still lies beside them."""
    wanted = {item.info.calibration_sha256 for item in artifacts} - {None}
    for path in sorted({found for item in artifacts for found in item.path.resolve().parent.glob("*-calibration.json")}):
        try:
            record = CalibrationRecord.read(path)
        except GddctlError as error:
            log.debug("%s: left out of the card (%s)", path, error)
            continue
        if record.digest in wanted:
            return record
    return None
