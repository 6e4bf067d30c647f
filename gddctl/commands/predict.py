"""``gddctl predict``: images, folders, globs, videos, a camera or standard input, segmented into files."""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddctl.commands.flags import RunDevice, RunDeviceName
from gddctl.commands.output import Force, Json, Output, Quiet, Verbose
from gddctl.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from gddctl.serve.files.settings import PredictReport

_SHOWN = 5  # failures named in the last line; the others were named when they happened


def predict(
    model: Annotated[Path, typer.Argument(help="A bundle folder, an .onnx file or an .engine file.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Images, folders, 'globs', videos, camera:0, or - for one image on standard input."),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results; - is standard output.")] = "predictions",
    output: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="KIND,...", help="overlay, colors, ids (8-bit PNG), json (shares by class). Default: overlay."),
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="Slide the network's input over the image at its own size.")] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images, or windows, per call of the model.")] = 1,
    device: RunDevice = RunDeviceName.cpu,
    threads: Annotated[int | None, typer.Option("--threads", min=1)] = None,
    opacity: Annotated[float, typer.Option("--opacity", min=0.0, max=1.0, help="Of the colours in an overlay.")] = 0.55,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="At most so many frames of each video or camera.")] = None,
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse images with more.")] = 100_000_000,
    stdin_list: Annotated[
        bool, typer.Option("--stdin-list", help="Further paths from standard input: one a line, or of find -print0.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first input that cannot be read.")] = False,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Segment images and videos into DIR/KIND/NAME; the same command again goes on where it stopped.

    Inputs that cannot be read are named and passed over; the command then leaves with 5.
    """
    voice = Output(json=json, verbose=verbose, quiet=quiet)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about damage, which our own errors name
    from gddctl.commands.predict_progress import watcher_on
    from gddctl.runtime.open import open_runtime
    from gddctl.serve.files.inputs import find_inputs, most_bytes_of
    from gddctl.serve.files.kinds import parse_kinds
    from gddctl.serve.files.predict import predict_into, predict_to
    from gddctl.serve.files.settings import PredictSettings

    to_stdout = out == "-"
    if to_stdout and json:
        raise UsageError("--json with --out -: both want standard output", remedy="leave one out; the results themselves: --output json")
    settings = PredictSettings(
        kinds=parse_kinds(output or ["overlay"]),
        window=window,
        batch=batch,
        opacity=opacity,
        max_pixels=max_pixels,
        frames=frames,
        fail_fast=fail_fast,
    )
    if stdin_list and "-" in (inputs or ()):
        raise UsageError("- with --stdin-list: both read standard input", remedy="leave one out")
    listed = _listed() if stdin_list else ()
    items = find_inputs(
        inputs or (),
        out=None if to_stdout else Path(out),
        listed=listed,
        stdin=sys.stdin.buffer,
        most_bytes=most_bytes_of(max_pixels),
        now=time.strftime("%Y%m%d-%H%M%S"),
    )
    watcher = watcher_on(sys.stderr, quiet=quiet)
    with open_runtime(model, device=device.literal, threads=threads) as runtime:
        if to_stdout:
            _require_reader(settings.kinds)
            report = predict_to(_write, runtime, items, settings, watcher)
        else:
            report = predict_into(Path(out), runtime, items, settings, watcher, force=force)
            _say(voice, report, Path(out), model)
    if not report:
        remedy = "the others are finished; replace or rename these and start the same command again"
        raise DataError(_failures(report, len(items)), remedy=remedy)


def _say(voice: Output, report: PredictReport, out: Path, model: Path) -> None:
    parts = [f"{report.images} images"] if report.images or not report.frames else []
    parts += [f"{report.frames} frames"] if report.frames else []
    skipped = f", {report.skipped} inputs were finished before" if report.skipped else ""
    speed = f" in {report.seconds:.1f} s ({report.images_per_s:.1f} per s, {report.backend})" if report.images_per_s else ""
    voice.say(f"{' and '.join(parts)}{speed}{skipped}; results in {out}")
    voice.done({**report.to_json(), "out": str(out)}, following=f"gddctl bench {model}" if report else None)


def _failures(report: PredictReport, inputs: int) -> str:
    named = [failure.error for failure in report.failures[:_SHOWN]]
    more = len(report.failures) - len(named)
    return f"{len(report.failures)} of {inputs} inputs failed: {' | '.join(named)}{f' | and {more} more' if more else ''}"


def _listed() -> list[str]:
    if sys.stdin.isatty():
        raise UsageError("--stdin-list: standard input is a terminal, expected paths", remedy="pipe them in, for example from find")
    data = sys.stdin.buffer.read()
    lines = data.split(b"\0") if b"\0" in data else [line.rstrip(b"\r") for line in data.split(b"\n")]
    return [os.fsdecode(line) for line in lines]


def _require_reader(kinds: tuple[str, ...]) -> None:
    if kinds != ("json",) and sys.stdout.isatty():
        raise UsageError("--out -: standard output is a terminal, and a picture is bytes", remedy="redirect it: -o - > FILE")


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
