"""``gddctl parity``: does CANDIDATE answer like REFERENCE?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.flags import Data, LayoutFlag
from gddctl.commands.output import Json, Output, Quiet, Verbose, percent


def parity(
    reference: Annotated[Path, typer.Argument(help="The model to trust: a bundle or an exported file.")],
    candidate: Annotated[Path, typer.Argument(help="The model to test.")],
    data: Data = None,
    layout: LayoutFlag = None,
    split: Annotated[str | None, typer.Option("--split", help="Default: the val split.")] = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="Compare on N images only, spread evenly over the split.")] = None,
    gates: Annotated[
        Path | None, typer.Option("--gates", help="YAML with the limits per precision (the 'gates' section of a config).")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare two models on real validation images; leave with 3 when a limit is broken."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.errors import VerdictError
    from gddctl.pipeline.judging import parity_of_paths

    report = parity_of_paths(reference, candidate, data=data, layout=layout, split=split, images=images, gates=gates)
    (rung,) = report.rungs
    rows = [
        ["pixel agreement %", f"{100 * rung.agreement:.4f}", _limit(rung.limits.min_agreement, ">=", 100)],
        ["mIoU reference %", percent(rung.reference_miou), ""],
        ["mIoU candidate %", percent(rung.candidate_miou), ""],
        ["mIoU delta, points", f"{rung.miou_delta_points:+.2f}", _limit(rung.limits.max_miou_drop, ">= -", 1)],
        [
            f"worst class ({rung.worst_class}), points",
            _number(rung.worst_class_delta_points, "+.2f"),
            _limit(rung.limits.max_class_drop, ">= -", 1),
        ],
        ["SQNR, dB", _number(rung.sqnr_db, ".1f"), _limit(rung.limits.min_sqnr_db, ">=", 1)],
        ["max |difference|", _number(rung.max_abs_diff, ".2e"), _limit(rung.limits.max_abs_diff, "<=", 1)],
        ["NaN and Inf", str(rung.nan), "0"],
    ]
    output.table([f"{rung.images} images, {rung.precision} limits", "measured", "limit"], rows)
    output.say("passed" if report else "FAILED")
    output.done(report.to_json(), following=f"gddctl bench {candidate}" if report else None)
    if not report:
        raise VerdictError("; ".join(report.failures))


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _limit(value: float | None, sign: str, scale: float) -> str:
    return "" if value is None else f"{sign}{scale * value:g}"
