"""A bundle to its deployable files, in the order in which one is made from another."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path

from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import Artifact, artifact_name, write_manifest
from gddctl.core.config.sections import DataConfig, ExportConfig
from gddctl.core.workspace import hold
from gddctl.pipeline.datasets import data_of_model, open_usable

log = logging.getLogger(__name__)

_WORKSHOP = ".export-"


def export_bundle(bundle: Path, out: Path, config: ExportConfig, *, data: Path | None = None, layout: Enum | None = None) -> list[Artifact]:
    """Write every artifact that ``config`` asks for into ``out``, and the manifest over them.

    INT8 is calibrated on the train split of ``data``, else of the data that the card records.

    Raises:
        UsageError: no bundle; or INT8 without data to calibrate on.
        DataError: the calibration set is empty or overlaps val.
    """
    card = read_card(bundle)
    calibration_data = data_of_model(bundle, card.preprocess, data=data, layout=layout) if "int8" in config.precisions else None
    with hold(out), _workshop(out) as workshop:
        made = list(_make(bundle, card.role, workshop, config, calibration_data))
        # Only now, with every file whole: until here the folder holds what it held before.
        for file in workshop.iterdir():
            file.replace(out / file.name)
        artifacts = [replace(artifact, path=out / artifact.path.name) for artifact in made]
        write_manifest(out, artifacts)
    return artifacts


def export_names(name: str, config: ExportConfig) -> dict[str, str]:
    """The files that :func:`export_bundle` makes of a bundle of role ``name``: by label, in the order they are made.

    INT8 is made from FP32, and a deploy graph from its logits graph: those are always there.

    >>> list(export_names("student", ExportConfig(graphs=("logits",))))
    ['fp32-any.logits', 'int8-ort-cpu.logits']
    """
    kinds = [("fp32", "any"), *(("int8", target) for target in config.targets if "int8" in config.precisions)]
    graphs = ["logits", *(["deploy"] if "deploy" in config.graphs else [])]
    return {
        f"{precision}-{target}.{graph}": artifact_name(name, precision, target, graph) for precision, target in kinds for graph in graphs
    }


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    """A hidden folder inside ``out`` to make files in; gone afterwards, also what a killed export left. Hold ``out`` first."""
    for stale in out.glob(f"{_WORKSHOP}*"):
        shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_WORKSHOP, dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(bundle: Path, name: str, out: Path, config: ExportConfig, data: DataConfig | None) -> Iterator[Artifact]:
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.onnx_graph import export_logits

    files = export_names(name, config)

    def with_deploy(logits: Artifact, kind: str) -> Iterator[Artifact]:
        yield logits
        if (deploy := files.get(f"{kind}.deploy")) is not None:
            yield to_deploy(logits, out / deploy)

    log.info("export: %s", files["fp32-any.logits"])
    fp32 = export_logits(bundle, out / files["fp32-any.logits"], opset=config.opset)
    yield from with_deploy(fp32, "fp32-any")
    if data is None:
        return
    from gddctl.export.calibration.collect import calibrate
    from gddctl.export.int8 import quantize

    log.info("calibrate: %d images of split '%s'", config.calibration.images, data.train_split)
    train, val = (open_usable(data, split) for split in (data.train_split, data.val_split))
    record = calibrate(fp32, train, config.calibration, held_out=val, split=data.train_split)
    record.write(out / f"{name}-calibration.json")
    for target in config.targets:  # ort-cpu alone, says ExportConfig
        kind = f"int8-{target}"
        log.info("export: %s", files[f"{kind}.logits"])
        yield from with_deploy(quantize(fp32, record, out / files[f"{kind}.logits"]), kind)
