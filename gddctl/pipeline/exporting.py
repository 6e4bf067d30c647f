"""A student to its deployable files, in the order in which one is made from another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from gddctl import __version__
from gddctl.core.artifact.card import Card
from gddctl.core.artifact.card_io import read_card, require_plain
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact, artifact_name, verify_file, write_manifest
from gddctl.core.config.sections import DataConfig, ExportConfig, GatesConfig, Precision, Target
from gddctl.core.digest import sha256_json
from gddctl.core.errors import GddctlError, UsageError
from gddctl.core.files import write_json
from gddctl.core.invocation import command_line
from gddctl.core.reports.recovery import Recovery
from gddctl.core.workspace import hold
from gddctl.pipeline.calibrating import Calibration, bring_record
from gddctl.pipeline.datasets import data_of_model
from gddctl.pipeline.export_plan import engine_names, export_names, graphs, kinds
from gddctl.pipeline.workshop import publish, workshop
from gddctl.runtime.describe import read_onnx_info

log = logging.getLogger(__name__)

Start = Callable[[Path], Artifact]  # the workshop -> the FP32 logits file


@dataclass(frozen=True)
class Made:
    """What an export wrote, and what its INT8 gates said."""

    artifacts: tuple[Artifact, ...]
    recoveries: tuple[Recovery, ...] = ()
    notes: tuple[str, ...] = ()  # what was changed in, or is to be known about, somebody else's graph

    @property
    def failures(self) -> tuple[str, ...]:
        """Gates that nothing made pass: what the plain file, which stands, fails by."""
        return tuple(
            f"int8 for {recovery.target}: {failure}"
            for recovery in self.recoveries
            if not recovery
            for failure in recovery.trades[0].rung.failures
        )


@dataclass(frozen=True)
class Order:
    """What is asked of an export besides the student."""

    config: ExportConfig
    gates: GatesConfig = field(default_factory=GatesConfig)
    sensitivity: bool = False  # also make the table of losses by block where the gate passes


def export_bundle(bundle: Path, out: Path, order: Order, *, data: Path | None = None, layout: Enum | None = None) -> Made:
    """Write every file that ``order`` asks for into ``out``, and the manifest over them.

    INT8 is calibrated on the train split of ``data``, else of the data that the card records.

    Raises:
        UsageError: no bundle; or INT8 without data to calibrate on.
        DataError: the calibration set is empty or overlaps val.
    """
    card = read_card(bundle)
    require_plain(bundle, card, what="exported")

    def start(folder: Path) -> Artifact:
        path = artifact_name(card.role, "fp32", "any", "logits")
        if (whole := _whole(folder / path, out / path, card, order.config)) is not None:
            return whole
        from gddctl.export.onnx_graph import export_logits

        log.info("export: %s", path)
        return export_logits(bundle, folder / path, opset=order.config.opset)

    found = data_of_model(bundle, card.preprocess, data=data, layout=layout) if "int8" in order.config.precisions else None
    return _export(out, card.role, order, start, found, identity=card.weights_sha256, card=card)


def export_file(
    path: Path, out: Path, order: Order, *, card: Path | None = None, data: Path | None = None, layout: Enum | None = None
) -> Made:
    """Like :func:`export_bundle`, from an FP32 logits file: one of ours, or, with ``card``, somebody else's segmentation ONNX.

    Raises:
        UsageError: no such file, a card for a file of ours, or INT8 without data.
        ArtifactError: the file is broken or no FP32 logits graph.
    """
    notes: list[str] = []
    if card is not None:
        from gddctl.core.artifact.foreign_card import read_foreign_card

        described = read_foreign_card(card)
        name, preprocess = described.name, described.preprocess

        def start(folder: Path) -> Artifact:
            from gddctl.export.foreign import import_onnx

            artifact, findings = import_onnx(
                path, described, folder / artifact_name(name, "fp32", "any", "logits"), opset=order.config.opset
            )
            notes.extend(str(finding) for finding in findings)
            return artifact

        identity = verify_file(path)
    else:
        info = read_onnx_info(path)
        name, preprocess = _name_of(path, info), info.preprocess
        given = Artifact(path=path, sha256=verify_file(path), format="onnx", info=info)
        if (info.precision, info.graph) != ("fp32", "logits"):
            raise UsageError(
                f"{path}: other precisions are made from an fp32 logits file, this is {info.precision} {info.graph}",
                remedy="name the fp32 logits file or the bundle; an engine of this very file is built with --trt and no --precision",
            )

        def start(folder: Path) -> Artifact:
            return given

        identity = given.sha256
    found = data_of_model(path, preprocess, data=data, layout=layout) if "int8" in order.config.precisions else None
    made = _export(out, name, order, start, found, identity=identity, card=None)
    return replace(made, notes=tuple(notes))


def build_one(path: Path, out: Path, config: ExportConfig) -> Made:
    """The engine of one exported file, as on a device: needs neither torch nor onnx."""
    info = read_onnx_info(path)
    from gddctl.export.trt_engine import build_engine

    artifact = Artifact(path=path, sha256=verify_file(path), format="onnx", info=info)
    with hold(out):
        name = artifact_name(_name_of(path, info), info.precision, "tensorrt", info.graph, suffix=".engine")
        engine = build_engine(artifact, out / name, config.engine)
        write_manifest(out, [engine])
    return Made((engine,))


def _name_of(path: Path, info: ModelInfo) -> str:
    """What the files made from ``path`` are called: as it is, where it is called by the rule."""
    rest = artifact_name("", info.precision, info.target, info.graph)
    return path.name.removesuffix(rest) if path.name.endswith(rest) and path.name != rest else info.name


def _whole(made: Path, published: Path, card: Card, config: ExportConfig) -> Artifact | None:
    """The FP32 file of the same weights, made by this version before: by a killed export, or the one that stands in the folder."""
    for path in (made, published):
        if not path.is_file():
            continue
        try:
            info, sha256 = read_onnx_info(path), verify_file(path)
        except GddctlError:
            continue  # damaged or not ours: made anew
        if (info.weights_sha256, info.opset, info.gddctl_version) == (card.weights_sha256, config.opset, __version__):
            return Artifact(path=path, sha256=sha256, format="onnx", info=info)
    return None


def _export(out: Path, name: str, order: Order, start: Start, data: DataConfig | None, *, identity: str, card: Card | None) -> Made:
    digest = sha256_json({"student": identity, "version": __version__, "config": order.config.model_dump(mode="json")})
    with hold(out), workshop(out, digest) as folder:
        recoveries: list[Recovery] = []
        made = list(_make(name, folder, out, order, start, data, card, recoveries))
        # Only now, with every file whole: until here the folder holds what it held before.
        publish(folder, out)
        artifacts = tuple(
            replace(artifact, path=out / artifact.path.name) if artifact.path.parent == folder else artifact for artifact in made
        )
        write_manifest(out, [artifact for artifact in artifacts if artifact.path.parent == out])
    return Made(artifacts, tuple(recoveries))


def _make(
    name: str,
    folder: Path,
    out: Path,
    order: Order,
    start: Start,
    data: DataConfig | None,
    card: Card | None,
    recoveries: list[Recovery],
) -> Iterator[Artifact]:
    from gddctl.export.deploy_graph import to_deploy

    files, engines = export_names(name, order.config), engine_names(name, order.config)
    fp32 = start(folder)
    calibration = None
    if data is not None:
        path = folder / f"{name}-calibration.json"
        bring_record(out / path.name, path)
        calibration = Calibration(fp32, data, order.config, order.gates.int8, path=path, card=card)
    for precision, target in kinds(order.config):
        logits = fp32
        if precision != "fp32":
            path = folder / files[f"{precision}-{target}.logits"]
            logits = _lowered(name, precision, target, fp32, path, calibration, order, recoveries)
        for graph in graphs(order.config):
            label = f"{precision}-{target}.{graph}"
            artifact = logits if graph == "logits" else to_deploy(logits, folder / files[label])
            yield artifact
            if label in engines:
                from gddctl.export.trt_engine import build_engine

                log.info("build: %s", engines[label])
                yield build_engine(artifact, folder / engines[label], order.config.engine)


def _lowered(
    name: str,
    precision: Precision,
    target: Target,
    fp32: Artifact,
    path: Path,
    calibration: Calibration | None,
    order: Order,
    recoveries: list[Recovery],
) -> Artifact:
    """FP16 or INT8 from FP32."""
    log.info("export: %s", path.name)
    if precision == "fp16":
        from gddctl.export.fp16 import to_fp16

        return to_fp16(fp32, path, record=calibration.record if calibration is not None else None)
    assert calibration is not None, "int8 brings its data"
    artifact, recovery = calibration.quantised(target, path, table=order.sensitivity)
    if recovery is not None:
        recoveries.append(recovery)
        write_json(path.with_name(f"{name}-recovery-{target}.json"), {**recovery.to_json(), "command": command_line()})
    return artifact
