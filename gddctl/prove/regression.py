"""A latency report against one of before: which rows are the same question, and which are answered more slowly.

The unit is the turn, not the call: calls in one turn are alike, and thousands of them would make any drift of the machine significant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gddctl.core.config.bench import BenchConfig
from gddctl.core.errors import UsageError
from gddctl.core.holm import holm
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.regression import GONE, LEVEL, Finding, Regression
from gddctl.prove.rank_test import lower_bound, p_larger, pair_ratios, smallest_p
from gddctl.runtime.gpu_facts import NOT_KNOWN

MOST_ROUNDS = 60  # that a remedy proposes
ALONE = 0.9  # CPUs that a call on the CPU keeps busy at least when nothing else wants them
DEPRIVED = 0.1  # share of the CPU time it wanted that others may have before a bench is said not to be alone
BUSY_CHANGE = 0.1  # of the CPUs a process had, from which times do not compare: it is of the order of what is looked for
VERSIONS = ("NVIDIA driver", "cuda", "cudnn", "driver", "numpy", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "torch")
SETTINGS = ("GPU power limit", "governor", "power mode", "turbo")  # of the machine, that decide how fast it is
PROBE_NOTE = 0.1  # change of the machine's own matrix product from which it is mentioned


def regression(old: LatencyReport, new: LatencyReport, *, max_slowdown: float, against: str) -> Regression:
    """Every row of ``new`` against its row in ``old``.

    Args:
        old: before.
        new: now.
        max_slowdown: 0.05 allows 5 %: what is tested is whether a row is slower than that, not whether it is slower at all.
        against: what to call ``old``.
    """
    before, now = Counter(map(key_of, old.rows)), Counter(map(key_of, new.rows))
    by_key = {key_of(row): row for row in old.rows}
    findings, settings = [], tuple(_settings(old.machine, new.machine))
    for row in new.rows:
        key, words = key_of(row), words_of(row)
        if now[key] > 1 or before[key] > 1:
            findings.append(Finding(words, incomparable="several rows of this name; tell them apart by the files' names"))
        elif key not in by_key:
            findings.append(Finding(words, incomparable=_closest(row, old.rows)))
        else:
            findings.append(_compare(by_key[key], row, max_slowdown, settings))
    findings += [Finding(words_of(row), incomparable=GONE) for row in old.rows if key_of(row) not in now]
    return Regression(tuple(_adjusted(findings)), max_slowdown, against)


def require_power(old: LatencyReport, rounds: int, rows: int, place: str) -> None:
    """Refuse a comparison that could never find anything, before minutes of measuring.

    Raises:
        UsageError: so few turns that the smallest possible p is above the level.
    """
    turns = min((len(row.rounds_p50_ms) for row in old.rows), default=0)
    if not turns:
        raise UsageError(f"{place}: no rows to compare with", remedy="measure again with --out")
    if smallest_p(rounds, turns) * rows <= LEVEL:
        return
    enough = next((count for count in range(rounds, MOST_ROUNDS + 1) if smallest_p(count, turns) * rows <= LEVEL), None)
    remedy = f"--rounds {enough}" if enough else f"measure {place} again with more --rounds"
    raise UsageError(
        f"{place} has {turns} turns per row and this bench would take {rounds}: for {rows} rows no test can tell a regression from noise",
        remedy=remedy,
    )


def require_same_load(old: LatencyReport, config: BenchConfig, place: str) -> None:
    """Refuse calls that come otherwise than in every row of ``old``, before minutes of measuring.

    Raises:
        UsageError: no row of a scenario of this bench, or none with its arrivals or its rate.
    """
    if not any(row.scenario in config.scenarios for row in old.rows):
        there = ", ".join(sorted({row.scenario for row in old.rows}))
        raise UsageError(f"{place}: its rows are of {there}, this bench's of {', '.join(config.scenarios)}", remedy="choose its --scenario")
    loads = [row.load for row in old.rows if row.load is not None]
    if "offered-load" not in config.scenarios or not loads:
        return
    if not any(load.arrival == config.arrival for load in loads):
        raise UsageError(f"{place}: its calls arrive {loads[0].arrival}, not {config.arrival}", remedy=f"--arrival {loads[0].arrival}")
    if config.rate is not None and not any(np.isclose(load.rate, config.rate) for load in loads):
        there = ", ".join(f"{rate:.4g}" for rate in sorted({load.rate for load in loads}))
        raise UsageError(
            f"{place}: measured at {there} calls a second, not at {config.rate:g}",
            remedy="leave --rate out: every row then takes the rate that it has there",
        )


def rates_of(old: LatencyReport) -> dict[Key, float]:
    """Calls per second of the rows under load: what a new row must be offered to compare."""
    return {key_of(row): row.load.rate for row in old.rows if row.load is not None and 0.0 < row.load.rate < float("inf")}


@dataclass(frozen=True)
class Key:
    """What makes two rows the same question; the file's hash is none of it: a new file of the same name is what is asked about."""

    model: str
    graph: str
    precision: str
    target: str
    backend: str
    batch: int
    input_size: tuple[int, int]
    scenario: str
    cuda_graph: bool | None


def key_of(row: LatencyRow) -> Key:
    """The question that a row answers."""
    return Key(
        row.model, row.graph, row.precision, row.target, row.backend, row.batch, row.input_size, row.scenario, row.cuda_graph
    )  # fmt: skip


def words_of(row: LatencyRow) -> str:
    """A row in words."""
    return f"{row.model} on {row.backend}, batch {row.batch}, {row.scenario}{', CUDA graph' if row.cuda_graph else ''}"


def _compare(old: LatencyRow, new: LatencyRow, max_slowdown: float, settings: tuple[str, ...]) -> Finding:
    finding = Finding(words_of(new), notes=(*_notes(old, new), *settings))
    if why := "; ".join(_differences(old, new)):
        return replace(finding, incomparable=why)
    under_load = new.scenario == "offered-load"
    before, now = (old.rounds_p99_ms, new.rounds_p99_ms) if under_load else (old.rounds_p50_ms, new.rounds_p50_ms)
    finding = replace(finding, what=f"{'p99' if under_load else 'p50'} of each turn", turns=(len(before), len(now)))
    if not before or not now or smallest_p(len(now), len(before)) > LEVEL:
        return replace(finding, incomparable=f"too few turns ({len(before)} before, {len(now)} now); use more --rounds")
    allowed = 1.0 + max_slowdown
    return replace(
        finding,
        ratio=float(np.median(pair_ratios(now, before))),
        slower_at_least=lower_bound(now, before, LEVEL),
        p_slower=p_larger([value / allowed for value in now], before),
        p_faster=p_larger(before, [value * allowed for value in now]),
    )


def _differences(old: LatencyRow, new: LatencyRow) -> Iterator[str]:
    """Why the two cannot be compared."""
    if (before := old.environment.get("cpu", "")) != (now := new.environment.get("cpu", "")):
        yield f"another CPU ({before or 'none'} before, {now or 'none'} now)"
    yield from _gpus(old, new)
    if (before := _threads(old)) != (now := _threads(new)):
        yield f"{before} threads before, {now} now"
    yield from _taken(old, new)
    if new.load is not None and old.load is not None:
        if new.load.arrival != old.load.arrival:
            yield f"arrivals {old.load.arrival} before, {new.load.arrival} now"
        if not np.isclose(new.load.rate, old.load.rate):
            yield f"{old.load.rate:.3g} calls a second before, {new.load.rate:.3g} now; leave --rate out"


def _gpus(old: LatencyRow, new: LatencyRow) -> Iterator[str]:
    """Why the two cannot be compared: another GPU, or one that nobody named and that may therefore be any."""
    before, now = _known(old, "gpu"), _known(new, "gpu")
    unnamed = [when for when, gpu in (("of before", before), ("of now", now)) if not gpu]
    if unnamed and not new.backend.endswith("-cpu"):
        yield f"the row {' and the row '.join(unnamed)} names no GPU, so that it may be any; measure it again with this version"
    elif before != now:
        yield f"another GPU ({before or 'none'} before, {now or 'none'} now)"
    elif (was := _known(old, "compute capability")) and (is_now := _known(new, "compute capability")) and was != is_now:
        yield f"another GPU of the same name (compute capability {was} before, {is_now} now)"


def _taken(old: LatencyRow, new: LatencyRow) -> Iterator[str]:
    """Why the two cannot be compared: on a CPU, other work had more of it the one time than the other.

    It is the difference that counts: how many CPUs a runtime with several threads keeps busy when it is alone is its own affair. Where
    the kernel tells how long its threads waited, a file that keeps fewer of them busy is seen for what it is: slower.
    """
    before, now = old.busy_cpus, new.busy_cpus
    if not new.backend.endswith("-cpu") or not now:
        return
    if old.deprived is not None and new.deprived is not None:
        if abs(new.deprived - old.deprived) > BUSY_CHANGE:
            shares = f"{100 * old.deprived:.0f} % of the CPU time that this process wanted before, {100 * new.deprived:.0f} % now"
            yield f"other work had {shares}"
        return
    if not before:  # a report from before this was measured
        if now < ALONE:
            yield f"other work on the machine: this process had {now:.2f} CPUs now, and before it was not measured"
    elif max(before, now) > (1.0 + BUSY_CHANGE) * min(before, now):
        fewer = " (or the file keeps fewer of its threads busy)" if min(before, now) >= ALONE else ""
        yield f"other work on the machine{fewer}: this process had {before:.2f} CPUs before, {now:.2f} now"


def _notes(old: LatencyRow, new: LatencyRow) -> Iterator[str]:
    """What differs and may be the reason."""
    for what in VERSIONS:
        before, now = _known(old, what), _known(new, what)
        if before and now and before != now:
            yield f"{what} {before} before, {now} now"
    if old.stable is False or new.stable is False:
        yield "warm-up did not settle " + ("before" if old.stable is False else "now")
    if old.limit and new.limit and old.limit.macs_per_s and new.limit.macs_per_s:
        change = new.limit.macs_per_s / old.limit.macs_per_s - 1.0
        if abs(change) > PROBE_NOTE:
            yield f"the machine's own matrix product is {abs(100 * change):.0f} % {'slower' if change < 0 else 'faster'} than then"


def _settings(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """What of the machine was set otherwise."""
    for what in SETTINGS:
        before, now = old.get(what), new.get(what)
        if before and now and before != now:
            yield f"{what} {before} before, {now} now"


def _closest(row: LatencyRow, rows: Sequence[LatencyRow]) -> str:
    """Why a row has no partner: not there, or there with another batch, size or device."""
    key = key_of(row)
    near = [key_of(other) for other in rows if other.model == row.model]
    if not near:
        return "not in the report of before"
    found = sorted({name for other in near for name in Key.__dataclass_fields__ if getattr(other, name) != getattr(key, name)})
    return f"in the report of before only with another {', '.join(found).replace('_', ' ')}"


def _adjusted(findings: Sequence[Finding]) -> list[Finding]:
    """The p values of the rows that were compared, adjusted together, each direction by itself."""
    tested = [index for index, finding in enumerate(findings) if finding.p_slower is not None]
    slower = holm([findings[index].p_slower or 0.0 for index in tested])
    faster = holm([findings[index].p_faster or 0.0 for index in tested])
    result = list(findings)
    for place, index in enumerate(tested):
        result[index] = replace(findings[index], p_slower=slower[place], p_faster=faster[place])
    return result


def _known(row: LatencyRow, what: str) -> str:
    """A fact of the environment; empty where nobody told it."""
    told = row.environment.get(what, "")
    return "" if told == NOT_KNOWN else told


def _threads(row: LatencyRow) -> str:
    return str(row.threads) if row.threads is not None else row.environment.get("threads", "unknown")
