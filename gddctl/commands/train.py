"""``gddctl train``: supervised training of a teacher, or of the student without distillation."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import BatchSize, Data, Device, Devices, Iterations, LayoutFlag, PrecisionFlag, Seed, SkipBad, TimeLimit
from gddctl.commands.output import Force, Json, Output, Quiet, Set, Verbose
from gddctl.commands.training import train_and_tell


class Role(str, Enum):
    """What is trained."""

    teacher = "teacher"
    baseline = "baseline"


def train(
    config: Annotated[Path | None, typer.Argument(help="Settings in YAML; without it and without --data, the built-in demo.")] = None,
    role: Annotated[Role, typer.Option(help="The teacher, or the student's network on labels alone.")] = Role.teacher,
    data: Data = None,
    layout: LayoutFlag = None,
    iterations: Iterations = None,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = None,
    device: Device = None,
    devices: Devices = None,
    precision: PrecisionFlag = None,
    seed: Seed = None,
    skip_bad: SkipBad = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME.")] = None,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train on labels alone; under torchrun, on many processes."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.pipeline.settings import Flags

    flags = Flags(
        data=data, layout=layout, iterations=iterations, time_limit=time_limit, batch_size=batch_size, device=device, devices=devices,
        precision=precision, seed=seed, skip_bad=skip_bad,
    )  # fmt: skip

    def following(folder: Path, bundle: Path) -> str:
        # The folder's own settings, so that the student is trained on what its teacher was, into the same folder, and compares.
        return f"gddctl distill {folder / 'config.yaml'} --out {folder}" if role is Role.teacher else f"gddctl export {bundle}"

    train_and_tell(output, role.value, config, set_ or (), flags, out=out, force=force, following=following)
