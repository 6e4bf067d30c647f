"""What a latency row must be read with, as columns: how it was measured, and what the machine did meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gddctl.core.reports.latency import LatencyRow
from gddctl.core.reports.latency_parts import Range
from gddctl.report.wording import MISSING, megabytes


@dataclass(frozen=True)
class Column:
    """A column and where its cells come from; "" is what nobody measured."""

    title: str
    cell: Callable[[LatencyRow], str]


@dataclass(frozen=True)
class Facts:
    """A table's columns and cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def shown(columns: Sequence[Column], rows: Sequence[LatencyRow]) -> Facts:
    """The columns of which any row knows something; in those the others say n/a."""
    cells = {column.title: [column.cell(row) for row in rows] for column in columns}
    kept = {title: found for title, found in cells.items() if any(found)}
    return Facts(tuple(kept), tuple(tuple(found[index] or MISSING for found in kept.values()) for index in range(len(rows))))


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _on_device(row: LatencyRow, value: bool | None) -> str:
    """On a CPU there is nothing to transfer to, and no CUDA graph: that is known, not missing."""
    return _yes(value) or ("no device" if row.backend.endswith("-cpu") else "")


def _range(value: Range | None) -> str:
    if value is None:
        return ""
    low, median, high = round(value.low), round(value.median), round(value.high)
    return str(median) if low == high else f"{median} ({low} to {high})"


def _temperature(row: LatencyRow) -> str:
    found = row.sensed.temperature_c if row.sensed is not None else None
    return ", ".join(f"{name} {start:.0f} → {end:.0f}" for name, (start, end) in (found or {}).items())


def _throttle(row: LatencyRow) -> str:
    found = row.sensed.throttle if row.sensed is not None else None
    return "" if found is None else ", ".join(found) or "none"


def _energy(row: LatencyRow) -> str:
    sensed = row.sensed
    if sensed is None or sensed.energy_per_image_j is None:
        return ""
    return f"{1000 * sensed.energy_per_image_j:.1f}"


def _power(row: LatencyRow) -> str:
    sensed = row.sensed
    return "" if sensed is None or sensed.power_w is None else f"{sensed.power_w:.1f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}"


CONDITIONS = (
    Column("batch", lambda row: str(row.batch)),
    Column("input", lambda row: f"{row.input_size[1]} × {row.input_size[0]}"),
    Column("graph", lambda row: row.graph),
    Column("precision", lambda row: row.precision.upper()),
    Column("verified to hold", lambda row: row.verified),
    Column("transfers included", lambda row: _on_device(row, row.transfers)),
    Column("CUDA graph", lambda row: _on_device(row, row.cuda_graph)),
    Column("threads", lambda row: "" if row.threads is None else str(row.threads)),
    Column("warm-up settled", lambda row: _yes(row.stable)),
    Column("SHA-256", lambda row: row.sha256[:16]),
)
MACHINE = (
    Column("CPU MHz", lambda row: _range(row.sensed.cpu_mhz if row.sensed else None)),
    Column("GPU MHz", lambda row: _range(row.sensed.gpu_mhz if row.sensed else None)),
    Column("memory MHz", lambda row: _range(row.sensed.memory_mhz if row.sensed else None)),
    Column("throttling", _throttle),
    Column("°C, start → end", _temperature),
    Column("power, W", _power),
    Column("energy per image, mJ", _energy),
    Column("peak RSS, MB", lambda row: megabytes(row.memory.peak_rss) if row.memory and row.memory.peak_rss is not None else ""),
    Column("device memory, MB", lambda row: megabytes(row.memory.device) if row.memory and row.memory.device is not None else ""),
    Column("arithmetic, % of the probe", lambda row: _share(row.arithmetic_share)),
    Column("bandwidth, % of the probe", lambda row: _share(row.bandwidth_share)),
)
