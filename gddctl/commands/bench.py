"""``gddctl bench``: the latency table."""

from __future__ import annotations

import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gddctl.commands.output import Json, Output, Quiet, Verbose
from gddctl.core.errors import EnvironmentMissing, UsageError, VerdictError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gddctl.core.config.bench import BenchConfig
    from gddctl.core.reports.latency import LatencyReport, LatencyRow
    from gddctl.core.reports.regression import Regression
    from gddctl.prove.bench_plan import Subject

log = logging.getLogger(__name__)

ROUNDS = 16  # with which --compare finds what it should, see decision 0022; settings of a run keep their own number


class ScenarioFlag(str, Enum):
    """How calls come."""

    one_at_a_time = "one-at-a-time"
    offered_load = "offered-load"
    both = "both"


class ArrivalFlag(str, Enum):
    """How calls of offered-load are spaced."""

    poisson = "poisson"
    fixed = "fixed"


class GraphFlag(str, Enum):
    """Whether engines launch a recorded CUDA graph."""

    off = "off"
    on = "on"
    both = "both"


def bench(
    artifacts: Annotated[
        list[str],
        typer.Argument(metavar="MODEL[@DEVICE]...", help="Bundles and exported files; each runs in a process of its own, taking turns."),
    ],
    device: Annotated[
        str, typer.Option("--device", metavar="D,D,...", help="cpu, cuda, tensorrt, openvino: each file on each of them that it is for.")
    ] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1)] = 2,
    batch: Annotated[str, typer.Option("--batch", metavar="N,N,...", help="Batch sizes; a row for each.")] = "1",
    scenario: Annotated[ScenarioFlag, typer.Option("--scenario")] = ScenarioFlag.one_at_a_time,
    rate: Annotated[
        float | None, typer.Option("--rate", help="offered-load: calls a second. Default: that of --compare, else search the highest.")
    ] = None,
    max_p99: Annotated[
        str | None, typer.Option("--max-p99", metavar="MS", help="offered-load: the limit for p99, e.g. 50ms. Default: 3 x one call.")
    ] = None,
    arrival: Annotated[ArrivalFlag, typer.Option("--arrival", help="offered-load: how calls are spaced.")] = ArrivalFlag.poisson,
    seed: Annotated[int, typer.Option("--seed", min=0, help="offered-load: of the Poisson arrivals.")] = 0,
    cuda_graph: Annotated[GraphFlag, typer.Option("--cuda-graph", help="Of engines; 'both' makes two rows.")] = GraphFlag.off,
    samples: Annotated[int, typer.Option("--samples", min=1, help="At least this many per row.")] = 200,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="At least this long per row.")] = 10.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns each row takes.")] = ROUNDS,
    images: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="Run on this image, and time its decoding. Repeatable.")
    ] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--evals", metavar="FILE", help="mIoU from 'gddctl eval --json' or a run folder. Repeatable.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Also find what the machine itself reaches.")] = True,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="OLD.json", help="Leave with 3 where a row is slower than in this report.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --compare: leave with 3 also where a row of either report was not compared.")
    ] = False,
    max_slowdown: Annotated[str, typer.Option("--max-slowdown", metavar="5%", help="With --compare: what is allowed.")] = "5%",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write latency.json, the raw samples and latency.html here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Move a report that stands at --out aside instead of refusing it.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency where it runs: warm-up until stable, turns, percentiles, the split, sensors, raw samples kept."""
    output = Output(json=json, verbose=verbose, quiet=quiet)
    from gddctl.commands.bench_progress import BenchProgress
    from gddctl.commands.bench_table import tables
    from gddctl.core.config.bench import BenchConfig
    from gddctl.core.config.load import parse
    from gddctl.core.invocation import command_line
    from gddctl.pipeline.benching import bench_paths
    from gddctl.prove.bench_plan import parse_subject
    from gddctl.prove.regression import rates_of

    settings: dict[str, Any] = {
        "threads": threads, "batch": _integers("--batch", batch), "samples": samples, "seconds": seconds, "rounds": rounds,
        "devices": [word.strip() for word in device.split(",")],
        "scenarios": ["one-at-a-time", "offered-load"] if scenario is ScenarioFlag.both else [scenario.value],
        "arrival": arrival.value, "seed": seed, "rate": rate, "max_p99_ms": None if max_p99 is None else _milliseconds(max_p99),
        "cuda_graph": cuda_graph.value, "probe": probe,
    }  # fmt: skip
    _check(scenario, rate, max_p99, strict=strict and compare is None)
    config = parse(BenchConfig, settings)
    subjects = [parse_subject(text) for text in artifacts]
    allowed = _share(max_slowdown)
    old = None if compare is None else _before(compare, config, subjects)
    progress = BenchProgress(quiet=quiet)
    try:
        report = bench_paths(
            subjects, config, out=out, force=force, against=compare, rates=None if old is None else rates_of(old), files=images or [],
            evals=evals or [], command=tuple(command_line() or ()), progress=progress.turn, say=progress.say,
        )  # fmt: skip
    finally:
        progress.close()
    for title, (columns, rows) in tables(report):
        output.say(f"\n{title}")
        output.table(columns, rows)
    _footnotes(output, report)
    if out is not None:
        _page(output, out)
    compared = None if old is None else _compared(output, old, report, allowed, compare)
    result = report.to_json() | ({} if compared is None else {"comparison": compared.to_json()})
    output.done(result, following=f"gddctl eval {subjects[0].path}")
    if compared is not None:
        _judge(compared, allowed, compare, strict=strict)


def _before(place: Path, config: BenchConfig, subjects: Sequence[Subject]) -> LatencyReport:
    """The report to compare with; refused before minutes of measuring where nothing could come of it."""
    from gddctl.pipeline.benching import read_report
    from gddctl.prove.bench_plan import plan
    from gddctl.prove.regression import require_power, require_same_load

    old = read_report(place)
    require_power(old, config.rounds, len(plan(subjects, config).cases) * len(config.scenarios), str(place))
    require_same_load(old, config, str(place))
    return old


def _compared(output: Output, old: LatencyReport, new: LatencyReport, allowed: float, path: Path | None) -> Regression:
    """Every row against its like in the older report, told as a table."""
    from gddctl.commands.bench_table import comparison
    from gddctl.core.reports.regression import TEST
    from gddctl.prove.regression import regression

    compared = regression(old, new, max_slowdown=allowed, against=f"{path}{f' of {old.started}' if old.started else ''}")
    output.say(f"\nagainst {compared.against}; {TEST}; allowed: {100 * allowed:g} % slower")
    output.table(*comparison(compared))
    for finding in compared.findings:
        for words in (finding.incomparable, *finding.notes):
            if words:
                output.say(f"{finding.row}: {words}")
    return compared


def _judge(compared: Regression, allowed: float, path: Path | None, *, strict: bool) -> None:
    """Leave with 3 where a row is slower, or was not compared and all must be; with 2 where nothing was."""
    left = _left(compared)
    if compared.regressions:
        worst = max(compared.regressions, key=lambda finding: finding.ratio or 0.0)
        raise VerdictError(
            f"{len(compared.regressions)} of {compared.compared} rows slower than in {path} by more than {100 * allowed:g} %, "
            f"most of all {worst.row}: {worst.ratio:.2f} times (p {worst.p_slower:.2g}){f'; besides, {left}' if left else ''}"
        )
    if strict and left:
        raise VerdictError(f"{path}: nothing is shown to be slower, but {left}", remedy="the reasons stand above; --strict lets none pass")
    if not compared.compared:
        raise UsageError(f"{path}: none of its rows can be compared with this bench", remedy="the reasons stand above")
    if left:
        log.warning("%s: %s; --strict makes this exit 3", path, left)


def _left(compared: Regression) -> str:
    """How many rows nothing is said of, and why not of the first; empty for none."""
    from gddctl.core.reports.regression import GONE

    if not (left := compared.open):
        return ""
    first = min(left, key=lambda finding: finding.incomparable == GONE)  # of this bench before those of the older report alone
    return f"{len(left)} of {len(compared.findings)} rows were not compared, first of all {first.row}: {first.incomparable}"


def _footnotes(output: Output, report: LatencyReport) -> None:
    """What the tables must be read with."""
    output.say()
    output.say("; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in report.environment.items()))
    if report.idle_power_w is not None:
        output.say(f"idle power: {report.idle_power_w:.2f} W ({report.idle_power_source})")
    for row in report.rows:
        if row.stable is False:
            output.say(f"not shown steady: {row.model} on {row.backend}, batch {row.batch}: warm-up ended by time; longer: --seconds")
        if row.backend.endswith("-cpu") and (words := _others(row)):
            output.say(f"not alone: {row.model}, batch {row.batch}, {words}")
    for line in report.skipped:
        output.say(f"left out: {line}")
    if any(row.load is not None and row.load.searched for row in report.rows):
        output.say("* searched: the highest rate to keep p99 within its limit, if 'kept' says yes; else none that was tried did")
    output.say("rows of one table compare; rows of two do only by --compare; n/a: not measured; see docs/latency.md")


def _page(output: Output, folder: Path) -> None:
    """The numbers as a page, where it can be made: nobody loses a measurement for want of jinja2."""
    from gddctl.report.latency_page import write_latency_page

    try:
        output.say(f"page: {write_latency_page(folder)}")
    except EnvironmentMissing as error:
        output.say(f"no page: {error}")


def _check(scenario: ScenarioFlag, rate: float | None, max_p99: str | None, *, strict: bool) -> None:
    if strict:
        raise UsageError("--strict without --compare: there is nothing to be strict about", remedy="add --compare OLD.json")
    if scenario is ScenarioFlag.one_at_a_time and (rate is not None or max_p99 is not None):
        raise UsageError("--rate and --max-p99 belong to the scenario offered-load", remedy="add --scenario offered-load")


def _integers(option: str, text: str) -> list[int] | int:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        expected = f"{option} {text}: expected whole numbers with commas between them"
        raise UsageError(expected, remedy=f"for example {option} 1,4,8") from error
    if min(found) < 1:
        raise UsageError(f"{option} {text}: expected numbers from 1 on")
    return found[0] if len(found) == 1 else found


def _milliseconds(text: str) -> float:
    number = text.strip().removesuffix("ms").strip()
    try:
        found = float(number)
    except ValueError as error:
        raise UsageError(f"--max-p99 {text}: expected milliseconds", remedy="for example --max-p99 50ms") from error
    return found


def _share(text: str) -> float:
    """``5%`` or ``0.05``."""
    number = text.strip()
    try:
        found = float(number.removesuffix("%")) / (100.0 if number.endswith("%") else 1.0)
    except ValueError as error:
        raise UsageError(f"--max-slowdown {text}: expected a share", remedy="for example --max-slowdown 5%") from error
    if not 0.0 <= found < 100.0:
        raise UsageError(f"--max-slowdown {text}: expected 0 or more", remedy="for example --max-slowdown 5%")
    return found


def _others(row: LatencyRow) -> str:
    """What other work on the machine took from a row on the CPU; empty where that is little."""
    from gddctl.prove.regression import ALONE, DEPRIVED

    if row.deprived is not None:
        return f"waited for a CPU {100 * row.deprived:.0f} % of the time that it wanted one" if row.deprived > DEPRIVED else ""
    if row.busy_cpus is not None and row.busy_cpus < ALONE:
        return f"had {100 * row.busy_cpus:.0f} % of one CPU; other work had the rest"
    return ""
