"""The training settings people reach for, as flags."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer
from typing_extensions import assert_never


class LayoutName(str, Enum):
    """Dataset layouts."""

    synthetic = "synthetic"
    camvid = "camvid"
    cityscapes = "cityscapes"
    voc = "voc"
    ade20k = "ade20k"
    cocostuff = "cocostuff"
    folder = "folder"


class DeviceName(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class RunDeviceName(str, Enum):
    """Where a finished model runs; ``tensorrt``: through ONNX Runtime's provider; ``openvino``: its CPU plugin."""

    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"
    openvino = "openvino"

    @property
    def literal(self) -> Literal["cpu", "cuda", "tensorrt", "openvino"]:
        """As the runtimes spell it."""
        match self:
            case RunDeviceName.cpu:
                return "cpu"
            case RunDeviceName.cuda:
                return "cuda"
            case RunDeviceName.tensorrt:
                return "tensorrt"
            case RunDeviceName.openvino:
                return "openvino"
            case _ as never:
                assert_never(never)


class PrecisionName(str, Enum):
    """Precision of training."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


Data = Annotated[Path | None, typer.Option("--data", help="Folder of the dataset.")]
LayoutFlag = Annotated[LayoutName | None, typer.Option("--layout", help="Its layout; found by looking when not given.")]
Iterations = Annotated[int | None, typer.Option("--iterations", min=1)]
TimeLimit = Annotated[float | None, typer.Option("--time-limit", min=1, metavar="SECONDS", help="End training early after this long.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Over all processes together.")]
Device = Annotated[DeviceName | None, typer.Option("--device")]
RunDevice = Annotated[RunDeviceName, typer.Option("--device")]
Devices = Annotated[int | None, typer.Option("--devices", min=1, help="Processes (CPU) or GPUs.")]
PrecisionFlag = Annotated[PrecisionName | None, typer.Option("--precision")]
SkipBad = Annotated[
    int | None, typer.Option("--skip-bad", min=0, metavar="N", help="Train although up to N pairs are bad, leaving them out.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0)]
