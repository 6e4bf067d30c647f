"""``gddctl compare``: methods trained alike and held against each other."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gddctl.commands.output import Force, Json, Output, Quiet, Set, Verbose

if TYPE_CHECKING:
    from gddctl.core.reports.comparison import Comparison
    from gddctl.pipeline.compare.compare import Request


class OnName(str, Enum):
    """What cells are scored on."""

    val = "val"
    heldout = "heldout"


def compare(
    config: Annotated[Path | None, typer.Argument(help="Settings in YAML; without it, the built-in demo on drawn street scenes.")] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Separated by commas: kinds, gdd:PRESET, labels of compare.methods. Default: all labels.")
    ] = "",
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Trainings of each method. Default: compare.seeds.")] = None,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0)] = 0,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="SECONDS|METHOD",
            help="Equal time: so many seconds, or what METHOD takes for train.iterations; becomes iterations once, by measured steps.",
        ),
    ] = None,
    on: Annotated[OnName, typer.Option("--on", help="Score on val, or on training images held out, to choose settings by.")] = OnName.val,
    devices: Annotated[str | None, typer.Option("--devices", help="CUDA devices to use side by side: how many, or indices as 0,2.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Cells side by side on the processor, sharing its cores.")] = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the comparison. Default: runs/NAME-compare.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trainings and what they may take; do nothing.")] = False,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train every method with the same data, seeds and batches; tell what differs by more than chance. Goes on where it stopped."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.errors import RunFailed
    from gddctl.core.reports.comparison_table import method_table
    from gddctl.core.reports.comparison_words import measured, verdicts
    from gddctl.pipeline.compare.compare import compare as compare_all
    from gddctl.pipeline.compare.compare import requested
    from gddctl.pipeline.settings import refuse_torchrun, resolve
    from gddctl.prove.saturation import saturation

    refuse_torchrun()
    words = methods.split(",")
    request = requested(resolve(config, set_ or ()), words, seeds=seeds, first_seed=first_seed, budget=budget, on=on.value, out=out)
    if dry_run:
        from gddctl.pipeline.compare.dry_run import outlook

        seen = outlook(request)
        output.table(("cell", "iterations", "state", "estimate"), [line.cells() for line in seen.lines])
        output.say(f"\ninto {request.out}: {seen.summary}")
        following = shlex.join(["gddctl", *(word for word in sys.argv[1:] if word not in ("--dry-run", "--json"))])
        output.done(seen.to_json(), following=following)
        return
    result = compare_all(request, devices=devices, jobs=jobs, force=force)
    comparison = result.comparison
    table = method_table(comparison)
    output.say()
    output.table(table.columns, table.rows)
    output.say()
    ceiling = saturation(comparison)
    for sentence in (*verdicts(comparison), *([ceiling.sentence] if ceiling is not None else [])):
        output.say(sentence)
    output.say()
    for what, how in measured(comparison):
        output.say(f"{what}: {how}")
    for note in comparison.notes:
        output.say(f"note: {note}")
    output.say(f"\n{result.json}\n{result.page}")
    output.done(
        {"out": str(request.out), "page": str(result.page), "comparison": comparison.to_json()},
        following=_following(config, set_ or (), request, comparison, on),
    )
    failed = [f"{row.arm.method} seed {seed}" for row in comparison.rows for seed, _ in row.failed]
    if failed:
        raise RunFailed(
            f"{len(failed)} cells failed: {', '.join(failed[:6])}{'' if len(failed) <= 6 else ' and more'}",
            remedy="the reasons stand in the table; the same command tries them again",
        )


def _following(config: Path | None, overrides: Sequence[str], request: Request, comparison: Comparison, on: OnName) -> str | None:
    """The next useful command: the choice confirmed on val, more seeds, or the best student exported."""
    from gddctl.core.reports.comparison import REFERENCE
    from gddctl.pipeline.compare.budget import TimeOf
    from gddctl.pipeline.compare.plan import cell_folder

    best = next((row for row in comparison.rows if row.scores), None)
    if best is None:
        return None
    settings = [word for item in overrides for word in ("--set", item)]
    command = ["gddctl", "compare", *([str(config)] if config else []), *settings, "--methods"]
    budget = [] if request.budget is None else ["--budget", request.budget.flag]
    if on is OnName.heldout:
        chosen = next((row.arm.method for row in comparison.rows if row.scores and row.arm.method != REFERENCE), None)
        first = ["--first-seed", str(request.seeds[0])] if request.seeds[0] else []
        seeds = [*(["--seeds", str(len(request.seeds))] if len(request.seeds) != request.config.compare.seeds else []), *first]
        timed_by = request.budget.method if isinstance(request.budget, TimeOf) else None  # which has to be among them
        shown = dict.fromkeys(name for name in (REFERENCE, chosen, timed_by) if name is not None)
        return shlex.join([*command, ",".join(shown), *budget, *seeds])
    if len(best.scores) < 2:
        return shlex.join([*command, ",".join(each.name for each in request.methods), *budget, "--seeds", "5", "--out", str(request.out)])
    return shlex.join(["gddctl", "export", str(cell_folder(request.out, best.arm.method, best.seeds[0], best.arm.iterations) / "student")])
