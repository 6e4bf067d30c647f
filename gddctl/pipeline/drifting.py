"""Layer by layer: how far the tensors inside a run's lower precisions are from FP32's. Beside the ladder, judged by nobody."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from gddctl.core.config.sections import DataConfig
from gddctl.core.errors import GddctlError
from gddctl.core.files import write_json
from gddctl.core.reports.drift import DRIFTS_NAME, DriftReport, drifts_to_json
from gddctl.pipeline.datasets import open_usable
from gddctl.pipeline.ladder_members import member_of
from gddctl.prove.locate import locate

log = logging.getLogger(__name__)

IMAGES = 2  # a tensor has so many elements that its SQNR hardly moves with more; each costs two runs that keep everything


def write_drifts(out: Path, files: Sequence[Path], data: DataConfig) -> None:
    """Write ``out/drift.json``: every lower precision's logits file against the FP32 one; empty where there is no such pair.

    What cannot be compared here is left out with a warning: the page then does without it, and no verdict hangs on it.
    """
    members = [member_of(path) for path in files if path.suffix == ".onnx"]
    logits = {member.info.precision: member for member in members if member.info.graph == "logits" and member.info.precision == "fp32"}
    lowered = [member for member in members if member.info.graph == "logits" and member.info.precision != "fp32"]
    found: list[DriftReport] = []
    if logits and lowered:
        dataset = open_usable(data, data.val_split)
        for member in lowered:
            log.info("parity: layer by layer: %s", member.label)
            try:
                found.append(locate(logits["fp32"], member, dataset, images=IMAGES))
            except GddctlError as error:
                log.warning("%s: its layers were not compared: %s", member.label, error)
    write_json(out / DRIFTS_NAME, drifts_to_json(found))
