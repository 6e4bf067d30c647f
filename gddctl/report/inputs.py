"""A run folder's files as the page reads them: all are optional, none is changed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from gddctl.core.artifact.calibration import RECORD_SCHEMA, CalibrationRecord
from gddctl.core.artifact.card import WEIGHTS_NAME, Card, is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.yaml_text import read_yaml
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import read_optional
from gddctl.core.reports.comparison import COMPARISON_NAME, Comparison
from gddctl.core.reports.drift import DRIFTS_NAME, DriftReport, drifts_from_json
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport
from gddctl.core.reports.parity import ParityReport
from gddctl.core.reports.pictures import PICTURES_NAME, Pictures
from gddctl.core.reports.recovery import Recovery

CONFIG = "config.yaml"
ROLES = ("teacher", "baseline", "student")

T = TypeVar("T")


@dataclass(frozen=True)
class RunFiles:
    """What there is. Empty or None: that piece is not there (yet)."""

    folder: Path
    config: str  # config.yaml as it stands
    environment: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    cards: dict[str, Card]  # by role
    bundle_bytes: dict[str, int]  # size of the weights, by role
    scores: dict[str, EvalReport]  # by model name
    parity: ParityReport | None
    latency: LatencyReport | None
    samples: tuple[NDArray[np.float64], ...]  # raw latency in ms, one array per row of ``latency``
    artifacts: tuple[dict[str, Any], ...]  # rows of the manifest
    pictures: tuple[Path, ...]  # side by side, ready to look at
    scenes: Pictures | None  # the same as layers
    comparison: Comparison | None
    comparison_home: Path  # the folder it stands in: this one, or the one beside it that ``gddctl compare`` takes by default
    drifts: tuple[DriftReport, ...]
    recoveries: tuple[tuple[Recovery, Mapping[str, Any]], ...]  # what INT8 cost, and the file as it stands
    calibration: CalibrationRecord | None
    ledger: dict[str, dict[str, Any]]  # finished stages by name

    @property
    def bytes_of(self) -> dict[str, int]:
        """File size by SHA-256: of the weights for a bundle."""
        sizes = {card.weights_sha256: self.bundle_bytes[role] for role, card in self.cards.items() if role in self.bundle_bytes}
        return sizes | {row["sha256"]: row["bytes"] for row in self.artifacts if "bytes" in row}


def read_run(folder: Path) -> RunFiles:
    """Read ``folder``.

    Raises:
        UsageError: there is no such folder.
        ArtifactError: a file that is there cannot be read; the message names it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such run folder", remedy="name the --out folder of a run")
    cards = {role: read_card(folder / role) for role in ROLES if is_bundle(folder / role)}
    weights = {role: folder / role / WEIGHTS_NAME for role in cards}
    evaluated = read_optional(folder / "eval.json", lambda value: {k: EvalReport.from_json(v) for k, v in value["models"].items()})
    latency = read_latency(folder / "latency.json")
    config = folder / CONFIG
    home = _comparison_home(folder)
    return RunFiles(
        folder=folder,
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        environment=read_optional(folder / "env.json", dict) or {},
        metrics=_metrics(folder / "metrics.jsonl"),
        cards=cards,
        bundle_bytes={role: path.stat().st_size for role, path in weights.items() if path.is_file()},
        scores=evaluated or {},
        parity=read_optional(folder / "parity.json", ParityReport.from_json),
        latency=latency,
        samples=samples_beside(folder, latency),
        artifacts=read_optional(folder / "artifacts" / "manifest.json", lambda value: tuple(value["artifacts"])) or (),
        pictures=tuple(sorted((folder / "pictures").glob("*.png"))),
        scenes=read_optional(folder / "pictures" / PICTURES_NAME, Pictures.from_json),
        comparison=read_optional(home / COMPARISON_NAME, Comparison.from_json),
        comparison_home=home,
        drifts=read_optional(folder / DRIFTS_NAME, drifts_from_json) or (),
        recoveries=tuple(
            filter(None, (read_optional(path, _recovery) for path in sorted((folder / "artifacts").glob("*-recovery-*.json"))))
        ),
        calibration=read_optional(folder / "artifacts" / "student-calibration.json", _calibration),
        ledger=read_optional(folder / "stages.json", lambda value: dict(value["stages"])) or {},
    )


def _comparison_home(folder: Path) -> Path:
    """Where the comparison of this run stands: ``RUN-compare`` is it only while both have the same student on the same data."""
    beside = folder.resolve().with_name(f"{folder.resolve().name}-compare")
    if (folder / COMPARISON_NAME).is_file() or not (beside / COMPARISON_NAME).is_file():
        return folder
    return beside if (mine := _compared(folder)) is not None and mine == _compared(beside) else folder


def _compared(folder: Path) -> dict[str, Any] | None:
    path = folder / CONFIG
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
        return {key: settings[key] for key in ("data", "student")}
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return None  # no settings, no comparison


def _calibration(value: Any) -> CalibrationRecord | None:
    """A record of another schema is not read: its digest in the manifest still names it."""
    return CalibrationRecord.from_json(value) if value.get("schema") == RECORD_SCHEMA else None


def _recovery(value: Any) -> tuple[Recovery, Mapping[str, Any]]:
    return Recovery.from_json(value), value


def read_latency(path: Path) -> LatencyReport | None:
    """A latency report of any schema that this version reads; None where there is no such file."""
    return read_optional(path, LatencyReport.from_json)


def _metrics(path: Path) -> tuple[dict[str, Any], ...]:
    """Records of training; a line that a kill cut short is left out."""
    if not path.is_file():
        return ()
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("stage"), str) and isinstance(record.get("step"), int):
            records.append(record)
    return tuple(records)


def samples_beside(folder: Path, latency: LatencyReport | None) -> tuple[NDArray[np.float64], ...]:
    """Raw samples in the order of the rows; empty when the file is not there or does not belong to these rows."""
    if latency is None or latency.raw_file is None:
        return ()
    path = folder / Path(latency.raw_file).name
    if not path.is_file():
        return ()
    try:
        with np.load(path) as stored:
            names = [f"inference_{index}" for index in range(len(latency.rows))]
            if not set(names) <= set(stored.files):
                return ()
            found = tuple(np.asarray(stored[name], np.float64) for name in names)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: not readable as raw latency samples ({error})", remedy="measure again") from error
    return found if [array.size for array in found] == [row.samples for row in latency.rows] else ()
