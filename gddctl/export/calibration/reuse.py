"""When an earlier calibration still holds: everything that could change it is the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from gddctl.core.artifact.calibration import RULE, CalibrationRecord, preprocess_sha256
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig, Target
from gddctl.core.errors import ArtifactError
from gddctl.export.calibration.images import Selection
from gddctl.export.calibration.methods import SETTINGS
from gddctl.export.calibration.observe import float_activations
from gddctl.export.graph_file import load_artifact

log = logging.getLogger(__name__)


def reusable(
    path: Path, fp32: Artifact, config: CalibrationConfig, selection: Selection, *, split: str = "train", target: Target = "ort-cpu"
) -> CalibrationRecord | None:
    """The record at ``path`` if calibrating again would give it again, else None; the log says what differs.

    Args:
        path: what an earlier :meth:`CalibrationRecord.write` wrote, or nothing.
        fp32: the logits graph.
        config: what is asked for now.
        selection: the images that ``config`` draws now.
        split: what they are called.
        target: the first INT8 target; only ``auto`` depends on it.
    """
    if not path.is_file():
        return None
    try:
        record = CalibrationRecord.read(path)
    except ArtifactError as error:
        log.info("calibrate: again, since %s", error)
        return None
    different = next(differences(record, fp32, config, selection, split, target), None)
    if different is not None:
        log.info("calibrate: again, since the %s changed", different)
        return None
    log.info("calibrate: nothing changed, ranges of %s", path.name)
    return record


def differences(
    record: CalibrationRecord, fp32: Artifact, config: CalibrationConfig, selection: Selection, split: str, target: Target
) -> Iterator[str]:
    """What is not as it was, in words."""
    pairs = {
        "rule of calibration": (record.rule, RULE),
        "method": (record.method, config.method),
        "settings of the methods": (dict(record.settings), dict(SETTINGS)),
        "seed": (record.seed, config.seed),
        "split": (record.split, split),
        "choice of images": (record.chosen_by, selection.chosen_by),
        "list or content of the images": (record.images, selection.images),
        "list or content of the images to score on": (record.scored_on, selection.scored_on),
        "student's weights": (record.weights_sha256, fp32.info.weights_sha256),
        "preprocessing": (record.preprocess_sha256, preprocess_sha256(fp32.info.preprocess.model_dump_json())),
        "first INT8 target": (record.scored_for, target if config.method == "auto" else None),
    }
    for what, (then, now) in pairs.items():
        if then != now:
            yield what
    if tuple(record.observed) != float_activations(load_artifact(fp32)):
        yield "graph's tensors"
