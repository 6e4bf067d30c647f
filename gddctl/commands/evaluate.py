"""``gddctl eval``: accuracy at full label resolution, of a bundle or of an exported file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddctl.commands.flags import Data, LayoutFlag, RunDevice, RunDeviceName
from gddctl.commands.output import Json, Output, Quiet, Verbose, percent
from gddctl.core.errors import UsageError

if TYPE_CHECKING:
    from gddctl.core.reports.evaluation import EvalReport


def evaluate(
    model: Annotated[Path, typer.Argument(help="A bundle folder or an exported file.")],
    data: Data = None,
    layout: LayoutFlag = None,
    split: Annotated[str | None, typer.Option("--split", help="Default: the val split the model's data settings name.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    scales: Annotated[
        str, typer.Option("--scales", metavar="S,S,...", help="Average over these scales of the image; needs --window.")
    ] = "1",
    window: Annotated[bool, typer.Option("--window", help="Slide the network's input over the image at its own size.")] = False,
    device: RunDevice = RunDeviceName.cpu,
    threads: Annotated[int | None, typer.Option("--threads", min=1)] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Print mIoU, aAcc, mAcc and the IoU of every class, with the protocol they were measured by."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.pipeline.judging import evaluate_path
    from gddctl.prove.views import Views

    views = Views(flip=flip, scales=_factors(scales), window=window)
    report = evaluate_path(model, data=data, layout=layout, split=split, device=device.literal, threads=threads, views=views)
    scores = f"mIoU {percent(report.miou)}   aAcc {percent(report.aacc)}   mAcc {percent(report.macc)}"
    condition = f"{report.condition}: " if report.condition else ""
    output.say(f"{condition}{scores}   ({report.images} images, split {report.split})")
    output.say(f"protocol: {report.protocol}")
    if report.assisted is not None:
        rows = [[score.words, percent(score.miou), percent(score.aacc), f"{score.entropy:.3f}"] for score in report.assisted.planes]
        output.table(["shown", "mIoU %", "aAcc %", "entropy, nats"], rows)
        output.say(f"the most that entropy can be: {math.log(len(report.per_class)):.3f} nats")
        if report.assisted.warning:
            output.say(f"warning: {report.assisted.warning}")
    output.table(["class", "IoU %"], [[name, percent(value)] for name, value in report.per_class.items()])
    if report.absent:
        output.say(f"not in the mean, because nothing shows them: {', '.join(report.absent)}")
    output.done(report.to_json(), following=_following(model, report))


def _following(model: Path, report: EvalReport) -> str:
    from gddctl.core.artifact.card import is_bundle
    from gddctl.core.artifact.card_io import read_card

    if report.assisted is not None or (is_bundle(model) and read_card(model).origin is not None):  # neither is exported: they teach
        return f"gddctl distill --teacher {model}"
    return f"gddctl export {model}" if model.is_dir() else f"gddctl bench {model}"


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--scales {text}: expected numbers with commas between them", remedy="for example --scales 0.75,1,1.25"
        ) from error
