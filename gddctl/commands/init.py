"""``gddctl init``: a commented config for a dataset it has looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import LayoutFlag
from gddctl.commands.output import Json, Output, Quiet, Verbose


def init(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder of the dataset; without it, a config for the drawn scenes.")
    ] = None,
    layout: LayoutFlag = None,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("gddctl.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there; the old one is kept as FILE.old.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Look at a dataset and write a commented config for it."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.pipeline.init import write_config

    seen = write_config(directory, out, layout=layout, force=force)
    output.say(f"{out}: {seen}")
    output.done({"config": str(out), "seen": seen}, following=f"gddctl run {out} --dry-run")
