"""What the machine reaches, and what each artifact computes: the two numbers whose ratio says how much of the machine a row uses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gddctl.core.artifact.engine import read_record
from gddctl.core.digest import sha256_file
from gddctl.core.errors import GddctlError
from gddctl.core.reports.latency import LatencyRow
from gddctl.core.reports.latency_parts import Limit, Work
from gddctl.prove.latency_channel import WorkerChannel
from gddctl.runtime.describe import ENGINE_SUFFIX

log = logging.getLogger(__name__)

WORKER = "gddctl.prove.gauge_worker"
_COUNTED = "ONNX Runtime's profile of one run"


@dataclass(frozen=True)
class Gauged:
    """A measured row, the file it is of, and whether it computes on a GPU."""

    row: LatencyRow
    path: Path
    on_gpu: bool

    @property
    def same_network(self) -> tuple[Any, ...]:
        """Files with the same key compute the same products, whatever their precision."""
        return self.row.weights_sha256, self.row.input_size


def with_gauges(measured: Sequence[Gauged], threads: int) -> list[LatencyRow]:
    """The rows with their work and with the limits of the machine, each where it could be found.

    Probes run in a process of their own, on the CPUs that the rows were measured on, after all turns.
    """
    with WorkerChannel(Path("the probe of this machine"), threads=threads, worker=WORKER) as channel:
        gauge = _Gauge(channel, threads)
        counts = {item.path: gauge.count(item.path) for item in measured if item.path.suffix == ".onnx"}
        networks = {item.same_network: counts[item.path] for item in measured if counts.get(item.path)}
        rows = []
        for item in measured:
            found = counts.get(item.path) or networks.get(item.same_network) or gauge.count_source(item.path)
            rows.append(replace(item.row, work=_work(item, found), limit=gauge.limit(item)))
    return rows


class _Gauge:
    """Asks each question once."""

    def __init__(self, channel: WorkerChannel, threads: int) -> None:
        self._channel, self._threads = channel, threads
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}

    def count(self, path: Path) -> dict[str, Any]:
        """Of an ONNX file."""
        return self._ask("count", path=str(path.absolute()))

    def count_source(self, path: Path) -> dict[str, Any]:
        """Of the ONNX file that an engine was built from, where the very file lies beside it."""
        if path.suffix != ENGINE_SUFFIX:
            return {}
        record = read_record(path)
        source = path.with_name(record.onnx)
        return self.count(source) if source.is_file() and sha256_file(source) == record.onnx_sha256 else {}

    def limit(self, item: Gauged) -> Limit:
        """What the device of a row reaches in arithmetic of the row's kind."""
        device, kind = "cuda" if item.on_gpu else "cpu", item.row.precision
        if device == "cpu" and kind == "fp16":
            kind = "fp32"  # the CPU providers compute FP16 files in FP32
        # No probe here reaches a GPU's INT8 units: MatMulInteger does not run on them.
        speed = {} if (device, kind) == ("cuda", "int8") else self._ask("arithmetic", kind=kind, device=device, threads=self._threads)
        moved = self._ask("copy", device=device, threads=self._threads)
        return Limit(speed.get("macs_per_s"), speed.get("how", ""), moved.get("bytes_per_s"), moved.get("how", ""))

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer, {} where this machine has none: then the row says n/a."""
        key = (do, *sorted(arguments.items()))
        if key not in self._known:
            try:
                self._known[key] = self._channel.ask(do, **arguments)
            except GddctlError as error:
                log.warning("not probed: %s", error)
                self._known[key] = {}
        return self._known[key]


def _work(item: Gauged, counted: dict[str, Any]) -> Work | None:
    if not counted:
        return None
    row = item.row
    moved = None
    if row.backend == "onnxruntime-cpu" and row.file_bytes is not None and item.path.suffix == ".onnx":
        moved = row.batch * counted["activation_bytes"] + row.file_bytes  # other runtimes fuse otherwise, and do not tell
    return Work(row.batch * counted["macs"], moved, _COUNTED)
