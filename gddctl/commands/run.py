"""``gddctl run``: the whole job."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.output import Force, Json, Output, Quiet, Set, Verbose


def run(
    config: Annotated[Path | None, typer.Argument(help="Settings in YAML; without it, the built-in demo on drawn street scenes.")] = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder. Default: runs/NAME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the settings and the plan; do nothing.")] = False,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Teacher, baseline, distil, export, parity, bench, report; goes on where it stopped."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.errors import VerdictError
    from gddctl.pipeline.run import plan, run_all
    from gddctl.pipeline.settings import default_out, refuse_torchrun, resolve
    from gddctl.pipeline.summary import COLUMNS

    refuse_torchrun()
    settings = resolve(config, set_ or ())
    folder = out or default_out(settings)
    if dry_run:
        from gddctl.core.config.load import to_settings, to_yaml

        steps = plan(settings, folder)
        output.say(to_yaml(settings).rstrip())
        output.say(f"\n# into {folder}")
        for step in steps:
            output.say(f"#   {step.name:<10} {step.state:<5} {step.what}")
        words = ["gddctl", "run", *([str(config)] if config else []), *(word for item in set_ or () for word in ("--set", item))]
        following = shlex.join([*words, "--out", str(folder)])
        output.done({"config": to_settings(settings), "out": str(folder), "plan": [vars(step) for step in steps]}, following=following)
        return
    summary = run_all(settings, folder, force=force)
    output.say()
    output.table(COLUMNS, [line.cells() for line in summary.models])
    for warning in summary.warnings:
        output.say(f"\nwarning: {warning}")
    output.say(f"\nreport: {summary.report}")
    output.done(summary.to_json(), following=summary.following)
    if summary.failures:
        raise VerdictError("; ".join(summary.failures), remedy=f"see {summary.report}")
