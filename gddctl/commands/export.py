"""``gddctl export``: a student to deployable files with lineage."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddctl.commands.flags import Data, LayoutFlag
from gddctl.commands.output import Json, Output, Quiet, Verbose, percent

if TYPE_CHECKING:
    from gddctl.core.artifact.manifest import Artifact
    from gddctl.core.reports.recovery import Recovery
    from gddctl.pipeline.exporting import Made


class ExportPrecision(str, Enum):
    """Precisions that can be exported."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class ExportTarget(str, Enum):
    """Runtimes an INT8 file can be lowered for; FP32 and FP16 files serve any."""

    ort_cpu = "ort-cpu"
    ort_cuda = "ort-cuda"
    openvino = "openvino"
    tensorrt = "tensorrt"


class BuilderName(str, Enum):
    """Who builds engines."""

    auto = "auto"
    tensorrt = "tensorrt"
    rtx = "rtx"


class CalibrateName(str, Enum):
    """How activations' ranges are found."""

    auto = "auto"
    minmax = "minmax"
    entropy = "entropy"
    percentile = "percentile"
    mse = "mse"


def export(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE|ONNX", help="A bundle folder, or an exported .onnx file.")],
    precision: Annotated[
        list[ExportPrecision] | None,
        typer.Option(
            "--precision",
            help="Repeatable. Default: its run's, else fp32 and int8; with --trt fp16 and int8. The fp32 is always there.",
        ),
    ] = None,
    target: Annotated[
        list[ExportTarget] | None,
        typer.Option("--target", help="Of the int8 files. Repeatable. Default: its run's, else ort-cpu; with --trt tensorrt."),
    ] = None,
    trt: Annotated[bool, typer.Option("--trt", help="Also build TensorRT engines, on the machine they will run on.")] = False,
    builder: Annotated[
        BuilderName | None, typer.Option("--builder", help="Default auto: TensorRT where it is installed, else TensorRT-RTX.")
    ] = None,
    batch: Annotated[
        tuple[int, int, int] | None,
        typer.Option("--batch", metavar="MIN OPT MAX", help="Batch sizes of the engines' profile. Default: 1 1 8."),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option("--workspace", min=1, metavar="MB", help="Most scratch memory a layer of an engine may take. Default: 1024."),
    ] = None,
    calibrate: Annotated[
        CalibrateName | None, typer.Option("--calibrate", help="Default auto: try all, keep the best on held-out training images.")
    ] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="Calibration images, from the train split. Default: 128.")] = None,
    recover: Annotated[
        bool | None,
        typer.Option(
            "--recover/--no-recover",
            help="Where the int8 gate fails on held-out training images, leave the worst blocks in high precision. Default: yes.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also quantise one block at a time and print what each costs.")
    ] = False,
    gates: Annotated[Path | None, typer.Option("--gates", help="YAML with the limits per precision.")] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="YAML that describes somebody else's ONNX: name, classes, preprocess.")
    ] = None,
    data: Data = None,
    layout: LayoutFlag = None,
    opset: Annotated[int | None, typer.Option("--opset", min=18, max=22, help="Default: 20.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: artifacts/ beside the bundle; beside an .onnx file.")] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write ONNX files and engines; a failed export leaves nothing behind. Leaves with 3 when INT8 cannot keep its gate.

    What no flag says is as in the settings of the run that the student lies in, where it lies in one.
    """
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.errors import UsageError, VerdictError
    from gddctl.pipeline.export_settings import Asked, order_for
    from gddctl.pipeline.exporting import build_one, export_bundle, export_file
    from gddctl.runtime.describe import require_model

    require_model(source)
    asked = Asked(
        precisions=precision, targets=target, opset=opset, images=images, method=calibrate, recover=recover, engines=trt,
        builder=builder, batch=batch, workspace_mb=workspace, gates=gates, sensitivity=sensitivity,
    )  # fmt: skip
    order = order_for(source if card is None else None, asked)
    if source.is_dir():
        if card is not None:
            raise UsageError("--card describes an ONNX file from elsewhere; a bundle has its own", remedy="leave --card out")
        folder = out or source.resolve().parent / "artifacts"
        made = export_bundle(source, folder, order, data=data, layout=layout)
    else:
        folder = out or source.resolve().parent
        if trt and precision is None and card is None:
            made = build_one(source, folder, order.config)
        else:
            made = export_file(source, folder, order, card=card, data=data, layout=layout)
    _tell(output, folder, made)
    result = {
        "folder": str(folder),
        "artifacts": [item.to_json() for item in made.artifacts],
        "recoveries": [recovery.to_json() for recovery in made.recoveries],
        "notes": list(made.notes),
    }
    output.done(result, following=_following(source, made))
    if made.failures:
        raise VerdictError("; ".join(made.failures))


def _tell(output: Output, folder: Path, made: Made) -> None:
    for note in made.notes:
        output.say(note)
    rows = [[item.path.name, _types(item), f"{item.path.stat().st_size / 1e6:.1f}", item.sha256[:12]] for item in made.artifacts]
    output.table([f"in {folder}", "convolutions", "MB", "sha256"], rows)
    for recovery in made.recoveries:
        _tell_recovery(output, recovery)


def _types(artifact: Artifact) -> str:
    """What the convolutions compute in, as counted: ``25 int8, 1 float``."""
    counts = {name.removeprefix("conv."): count for name, count in artifact.info.census.items() if name.startswith("conv.") and count}
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "n/a"


def _tell_recovery(output: Output, recovery: Recovery) -> None:
    if recovery.losses:
        output.say()
        rows = [
            [loss.block, str(loss.convs), f"{loss.miou_delta_points:+.2f}", percent(loss.agreement), _db(loss.sqnr_db)]
            for loss in recovery.losses
        ]
        output.table([f"int8 for {recovery.target}, one block at a time", "convs", "mIoU points", "agreement %", "SQNR dB"], rows)
    if recovery.losses or not recovery:
        output.say()
        rows = [
            [
                ", ".join(trade.kept) or "none",
                f"{trade.rung.miou_delta_points:+.2f}",
                percent(trade.rung.agreement),
                "n/a" if trade.latency_ms is None else f"{trade.latency_ms:.1f}",
                f"{trade.size_mb:.1f}",
                "passed" if trade.rung.passed else "FAILED",
            ]
            for trade in recovery.trades
        ]
        title = f"blocks in high precision ({recovery.images} held-out training images)"
        output.table([title, "mIoU points", "agreement %", "ms", "MB", "gate"], rows)


def _db(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


def _following(source: Path, made: Made) -> str:
    """Parity of the lowest precision, against what it was made from."""
    candidate = next((item for item in reversed(made.artifacts) if item.format == "engine"), None)
    candidate = candidate or next((item for item in made.artifacts if item.info.precision == "int8"), made.artifacts[-1])
    return f"gddctl parity {source} {candidate.path}"
