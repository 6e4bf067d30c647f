"""``gddctl parity``: does CANDIDATE answer like REFERENCE? With ``--ladder``: does every file of a run?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import Data, LayoutFlag, RunDeviceName
from gddctl.commands.output import Json, Output, Quiet, Verbose


def parity(
    reference: Annotated[Path | None, typer.Argument(help="The model to trust: a bundle or an exported file.")] = None,
    candidate: Annotated[Path | None, typer.Argument(help="The model to test.")] = None,
    ladder: Annotated[
        Path | None,
        typer.Option("--ladder", metavar="RUN", help="Judge every file of a run folder, or of an artifacts folder beside its bundle."),
    ] = None,
    every_rung: Annotated[bool, typer.Option("--all", help="With --ladder: also judge the rungs after one that failed.")] = False,
    locate: Annotated[
        bool, typer.Option("--locate", help="Name the first tensor that drifts: of the two files, or of the ladder's first failure.")
    ] = False,
    data: Data = None,
    layout: LayoutFlag = None,
    split: Annotated[str | None, typer.Option("--split", help="Default: the val split.")] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="Compare on N images only, spread evenly over the split.")] = None,
    gates: Annotated[
        Path | None, typer.Option("--gates", help="YAML with the limits per precision (the 'gates' section of a config).")
    ] = None,
    device: Annotated[RunDeviceName, typer.Option("--device", help="Of the candidate; the reference runs on the CPU.")] = RunDeviceName.cpu,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write the verdicts as JUnit XML.")] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare models on real validation images; leave with 3 when a limit is broken."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.commands.parity_output import show_drift, show_ladder, show_pair
    from gddctl.core.errors import UsageError, VerdictError
    from gddctl.pipeline.judging import ladder_of_path, parity_of_paths
    from gddctl.report.junit import write_junit

    if ladder is not None:
        if reference is not None:
            raise UsageError(f"{reference}: --ladder takes its models from {ladder}", remedy="give one or the other")
        if device is not RunDeviceName.cpu:
            raise UsageError("--device belongs to two models: every file of a ladder runs where it is for", remedy="leave it out")
        judged = ladder_of_path(ladder, data=data, layout=layout, split=split, images=images, gates=gates, every_rung=every_rung)
        show_ladder(output, judged.report)
    else:
        if reference is None or candidate is None:
            raise UsageError("parity needs two models", remedy="gddctl parity REFERENCE CANDIDATE, or gddctl parity --ladder RUN")
        if every_rung:
            raise UsageError("--all belongs to --ladder", remedy="leave it out")
        judged = parity_of_paths(
            reference, candidate, data=data, layout=layout, split=split, images=images, gates=gates, device=device.literal
        )
        show_pair(output, judged.report)
    if junit is not None:
        write_junit(junit, judged.report)
    drift = judged.locate() if locate else None
    if locate:
        show_drift(output, drift)
    result = judged.report.to_json() | ({"drift": drift.to_json() if drift else None} if locate else {})
    output.done(result, following=judged.following)
    if not judged.report:
        raise VerdictError("; ".join(judged.report.failures) or "no rung was run, so nothing is proven")
