"""``gddctl data``: is this dataset fit to train on; the drawn scenes as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import LayoutFlag
from gddctl.commands.output import Json, Output, Quiet, Verbose

app = typer.Typer(help="Look at a dataset, or write the drawn scenes.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    layout: LayoutFlag = None,
    splits: Annotated[list[str] | None, typer.Option("--split", help="Repeatable. Default: train and val.")] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find and name, file by file, what would spoil training; leave with 5 when there is something."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.errors import DataError
    from gddctl.pipeline.datasets import check_path

    report = check_path(path, layout=layout, splits=tuple(splits) if splits else ("train", "val"))
    for finding in report.findings:
        output.say(f"{finding.severity}: {finding.split}: {finding.file}: {finding.kind}: {finding.detail}")
    names = list(report.histogram)
    classes = list(next(iter(report.histogram.values()), {}))
    rows = [[name, *(f"{100 * report.histogram[split][name]:.2f}" for split in names)] for name in classes]
    output.table(["pixels, %", *names], rows)
    counts = ", ".join(f"{split}: {count}" for split, count in report.images.items())
    errors = sum(finding.severity == "error" for finding in report.findings)
    output.say(f"\nimages: {counts}; {errors} errors, {len(report.findings) - errors} warnings")
    output.done(report.to_json(), following=f"gddctl init {path}" if report else None)
    if not report:
        raise DataError(
            f"{path}: {errors} files are not fit to train on", remedy="mend or remove the files named above, or train with data.skip_bad=N"
        )


@app.command()
def synth(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for images/, masks/ and classes.yaml.")],
    train: Annotated[int, typer.Option("--train", min=1, help="Training images.")] = 256,
    val: Annotated[int, typer.Option("--val", min=1, help="Validation images.")] = 64,
    height: Annotated[int, typer.Option("--height", min=32, max=2048)] = 128,
    width: Annotated[int, typer.Option("--width", min=32, max=4096)] = 192,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 7,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the drawn street scenes as a dataset in the generic folder layout."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.config.sections import SyntheticConfig
    from gddctl.pipeline.datasets import write_synthetic

    config = SyntheticConfig(train_images=train, val_images=val, height=height, width=width, seed=seed)
    write_synthetic(directory, config)
    output.say(f"{directory}: {train} training and {val} validation scenes, {height} x {width}")
    output.done(
        {"folder": str(directory), "train": train, "val": val, "size": [height, width], "seed": seed},
        following=f"gddctl data check {directory}",
    )
