"""``gddctl export``: a bundle to deployable files with lineage."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import Data, LayoutFlag
from gddctl.commands.output import Json, Output, Quiet, Verbose


class ExportPrecision(str, Enum):
    """Precisions that can be exported."""

    fp32 = "fp32"
    int8 = "int8"


class ExportTarget(str, Enum):
    """Runtimes an INT8 file can be lowered for."""

    ort_cpu = "ort-cpu"


def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    precision: Annotated[
        list[ExportPrecision] | None,
        typer.Option("--precision", help="Repeatable. Default: fp32 and int8; int8 brings the fp32 it is made from."),
    ] = None,
    target: Annotated[list[ExportTarget] | None, typer.Option("--target", help="Repeatable. Default: ort-cpu.")] = None,
    data: Data = None,
    layout: LayoutFlag = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Calibration images, from the train split.")] = 128,
    opset: Annotated[int, typer.Option("--opset", min=18, max=22)] = 20,
    out: Annotated[Path | None, typer.Option("--out", help="Default: artifacts/ beside the bundle.")] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write ONNX files; INT8 is calibrated on training images, and a failed export leaves nothing behind."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.config.sections import CalibrationConfig, ExportConfig
    from gddctl.pipeline.exporting import export_bundle

    config = ExportConfig(
        precisions=tuple(dict.fromkeys(item.value for item in precision)) if precision else ("fp32", "int8"),
        targets=tuple(dict.fromkeys(item.value for item in target)) if target else ("ort-cpu",),
        opset=opset,
        calibration=CalibrationConfig(images=images),
    )
    folder = out or bundle.resolve().parent / "artifacts"
    artifacts = export_bundle(bundle, folder, config, data=data, layout=layout)
    rows = [[item.path.name, f"{item.path.stat().st_size / 1e6:.1f}", item.sha256[:12]] for item in artifacts]
    output.table([f"in {folder}", "MB", "sha256"], rows)
    candidate = next((item for item in artifacts if item.info.precision == "int8"), artifacts[0])
    output.done(
        {"folder": str(folder), "artifacts": [item.to_json() for item in artifacts]}, following=f"gddctl parity {bundle} {candidate.path}"
    )
