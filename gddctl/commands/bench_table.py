"""The bench's tables for a terminal: what was measured, where the time goes, the machine, and the comparison."""

from __future__ import annotations

from collections.abc import Sequence

from gddctl.commands.output import percent
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.latency_parts import Sensed
from gddctl.core.reports.regression import Regression

WIDTH = 120
NOT = "n/a"

Table = tuple[list[str], list[list[str]]]

_SHORT = {
    "torch-cpu": "torch",
    "onnxruntime-cpu": "ort-cpu",
    "onnxruntime-cuda": "ort-cuda",
    "onnxruntime-tensorrt": "ort-trt",
    "openvino-cpu": "openvino",
    "tensorrt-cuda": "tensorrt",
    "tensorrt-rtx-cuda": "trt-rtx",
}


def tables(report: LatencyReport) -> list[tuple[str, Table]]:
    """Every table with its title; those of a scenario that was not measured are left out."""
    single = [row for row in report.rows if row.scenario == "one-at-a-time"]
    loaded = [row for row in report.rows if row.scenario == "offered-load"]
    found = []
    if single:
        found.append(("one-at-a-time: latency in ms, a call after the other", _single(single)))
    if loaded:
        found.append(("offered-load: latency in ms from the intended arrival", _loaded(loaded)))
    found.append(("where the time goes: median ms per batch, each stage timed apart", _split(report.rows)))
    found.append(("the machine", _machine(report.rows)))
    return [(title, fit(table)) for title, table in found]


def comparison(compared: Regression) -> Table:
    """The findings of a comparison."""
    rows = [
        [finding.row, _number(finding.ratio, 3), _number(finding.slower_at_least, 3), _p(finding.p_slower), finding.state]
        for finding in compared.findings
    ]
    return fit((["row", "new/old", "at least", "p slower", "verdict"], rows))


def fit(table: Table, width: int = WIDTH) -> Table:
    """The table with its first column cut in the middle, so that no line is longer than ``width`` where that can be had."""
    columns, rows = table
    rest = sum(2 + max(len(row[index]) for row in [columns, *rows]) for index in range(1, len(columns)))
    room = max(12, width - rest)
    return columns, [[_cut(row[0], room), *row[1:]] for row in rows]


def _single(rows: Sequence[LatencyRow]) -> Table:
    columns = ["model", "on", "size", "batch", "p50", "p90", "p95", "p99", "CV %", "img/s", "transfers", "graph", "mIoU %"]
    return columns, [
        [
            row.model, _on(row), _size(row), str(row.batch), *map(_ms, (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms)),
            f"{100 * row.cv:.1f}", f"{row.throughput:.1f}", _flag(row.transfers, "in", "out"), _flag(row.cuda_graph, "on", "off"),
            _miou(row),
        ]
        for row in rows
    ]  # fmt: skip


def _loaded(rows: Sequence[LatencyRow]) -> Table:
    columns = ["model", "on", "size", "batch", "arrivals", "calls/s", "p50", "p95", "p99", "p99 limit", "kept", "img/s", "call p50"]
    lines = []
    for row in rows:
        load = row.load
        assert load is not None
        lines.append([
            row.model, _on(row), _size(row), str(row.batch), f"{load.arrival} {'' if load.arrival == 'fixed' else load.seed}".strip(),
            f"{load.rate:.3g}{'*' if load.searched else ''}", _ms(row.p50_ms), _ms(row.p95_ms), _ms(row.p99_ms),
            NOT if load.bound_ms is None else _ms(load.bound_ms), _flag(load.kept, "yes", "no"), f"{load.throughput:.1f}",
            _ms(load.service_p50_ms),
        ])  # fmt: skip
    return columns, lines


def _split(rows: Sequence[LatencyRow]) -> Table:
    columns = ["model", "on", "batch", "scenario", "decode", "preproc", "to device", "inference", "to host", "postproc", "by"]
    lines = []
    for row in rows:
        stages = list(row.split.stages.values()) if row.split else [None] * 6
        times = [NOT if stage is None else _ms(stage.p50_ms) for stage in stages]
        by = row.split.by.replace("CUDA events", "events").replace("wall clock", "clock") if row.split else NOT
        lines.append([row.model, _on(row), str(row.batch), _scenario(row), *times, by])
    return columns, lines


def _machine(rows: Sequence[LatencyRow]) -> Table:
    columns = ["model", "on", "batch", "MB", "RSS MB", "dev MB", "MHz", "°C", "throttled", "W", "mJ/img", "GMAC", "% arith", "% copy", "n"]
    lines = []
    for row in rows:
        sensed, memory = row.sensed or Sensed(), row.memory
        clock = sensed.gpu_mhz or sensed.cpu_mhz
        hottest = max((end for _, end in (sensed.temperature_c or {}).values()), default=None)
        energy = sensed.energy_per_image_j
        lines.append([
            row.model, _on(row), str(row.batch), _mega(row.file_bytes), _mega(memory.peak_rss if memory else None),
            _mega(memory.device if memory else None), NOT if clock is None else f"{clock.median:.0f}", _number(hottest, 0),
            NOT if sensed.throttle is None else ", ".join(sensed.throttle) or "no", _number(sensed.power_w, 1),
            _number(None if energy is None else 1000 * energy, 1), _number(_giga(row), 2), _share(row.arithmetic_share),
            _share(row.bandwidth_share), str(row.samples),
        ])  # fmt: skip
    return columns, lines


def _on(row: LatencyRow) -> str:
    holds = row.verified.split()[0] if row.verified else row.precision  # as found in the file, not as asked for
    return f"{_SHORT.get(row.backend, row.backend)} {holds}"


def _size(row: LatencyRow) -> str:
    return f"{row.input_size[0]}x{row.input_size[1]}"


def _scenario(row: LatencyRow) -> str:
    return {"one-at-a-time": "single", "offered-load": "load"}[row.scenario]


def _miou(row: LatencyRow) -> str:
    return NOT if row.miou is None else percent(row.miou)


def _giga(row: LatencyRow) -> float | None:
    return None if row.work is None or row.work.macs is None else row.work.macs / 1e9


def _ms(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _mega(value: int | None) -> str:
    return NOT if value is None else f"{value / 1e6:.0f}"


def _number(value: float | None, digits: int) -> str:
    return NOT if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return NOT if value is None else f"{100 * value:.0f}"


def _p(value: float | None) -> str:
    return NOT if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _flag(value: bool | None, yes: str, no: str) -> str:
    return NOT if value is None else yes if value else no


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    tail = (room - 1) * 2 // 3  # the end tells precision, target and graph
    return f"{text[: room - 1 - tail]}…{text[-tail:]}"
