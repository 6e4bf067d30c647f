"""``gddctl distill``: the student under its teacher."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import BatchSize, Data, Device, Devices, Iterations, LayoutFlag, PrecisionFlag, Seed, SkipBad, TimeLimit
from gddctl.commands.output import Force, Json, Output, Quiet, Set, Verbose
from gddctl.commands.training import train_and_tell


class MethodName(str, Enum):
    """Distillation methods."""

    none = "none"
    kd = "kd"
    cwd = "cwd"
    mgd = "mgd"
    dist = "dist"
    cirkd = "cirkd"
    diffkd = "diffkd"
    gdd = "gdd"


class QuantizeName(str, Enum):
    """Targets whose INT8 graph a student can train through."""

    ort_cpu = "ort-cpu"
    openvino = "openvino"
    tensorrt = "tensorrt"


def distill(
    config: Annotated[Path | None, typer.Argument(help="Settings in YAML. Not needed with --data and --teacher.")] = None,
    data: Data = None,
    layout: LayoutFlag = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", help="Bundle of the teacher, or a model folder of transformers or SMP. Default: the teacher in --out."),
    ] = None,
    student: Annotated[str | None, typer.Option("--student", help="ARCH-ENCODER[-sSTRIDE], e.g. deeplabv3-resnet18-s8.")] = None,
    method: Annotated[MethodName | None, typer.Option("--method")] = None,
    iterations: Iterations = None,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = None,
    device: Device = None,
    devices: Devices = None,
    precision: PrecisionFlag = None,
    seed: Seed = None,
    skip_bad: SkipBad = None,
    init: Annotated[Path | None, typer.Option("--init", help="Bundle of a student to start from.")] = None,
    quantize: Annotated[
        QuantizeName | None, typer.Option("--quantize", help="Train on through the INT8 graph of this target; needs --init.")
    ] = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME.")] = None,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Distil the student; killed and started again, it goes on where it was. Under torchrun, on many processes."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.pipeline.settings import Flags

    flags = Flags(
        data=data, layout=layout, teacher=teacher, student=student, method=method, iterations=iterations, time_limit=time_limit,
        batch_size=batch_size, device=device, devices=devices, precision=precision, seed=seed, init=init, skip_bad=skip_bad,
        quantize=quantize,
    )  # fmt: skip

    def following(folder: Path, bundle: Path) -> str:
        return f"gddctl export {bundle}" + (f" --precision int8 --target {quantize.value}" if quantize is not None else "")

    train_and_tell(output, "student", config, set_ or (), flags, out=out, force=force, following=following)
