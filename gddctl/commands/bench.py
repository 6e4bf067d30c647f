"""``gddctl bench``: the latency table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gddctl.commands.output import Json, Output, Quiet, Verbose, percent


def bench(
    artifacts: Annotated[list[Path], typer.Argument(help="Bundles and exported files; each runs in a process of its own, taking turns.")],
    threads: Annotated[int, typer.Option("--threads", min=1)] = 2,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 1,
    samples: Annotated[int, typer.Option("--samples", min=1, help="At least this many per artifact.")] = 200,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="At least this long per artifact.")] = 10.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns each artifact takes.")] = 3,
    out: Annotated[Path | None, typer.Option("--out", help="Write latency.json and the raw samples here.")] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency one image after another: monotonic clock, warm-up until stable, percentiles, raw samples kept."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.core.config.bench import BenchConfig
    from gddctl.pipeline.judging import bench_paths

    config = BenchConfig(threads=threads, batch=batch, samples=samples, seconds=seconds, rounds=rounds)
    report = bench_paths(artifacts, config, out=out)
    rows = [
        [row.model, row.backend, row.precision, *(f"{value:.2f}" for value in (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms)),
         f"{row.preprocess_p50_ms:.2f}", f"{100 * row.cv:.1f}", str(row.samples), percent(row.miou)]
        for row in report.rows
    ]  # fmt: skip
    output.table(["model", "backend", "holds", "p50 ms", "p90", "p95", "p99", "pre p50", "CV %", "n", "mIoU %"], rows)
    environment = report.rows[0].environment
    output.say("; ".join(f"{key}: {value}" for key, value in environment.items()))
    output.say("inference only, host memory to host memory; preprocessing apart; rows of one table compare, rows of two do not")
    output.done(report.to_json(), following=f"gddctl eval {artifacts[0]}")
