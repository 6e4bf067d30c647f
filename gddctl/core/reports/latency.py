"""How long an artifact takes, where, and how that was measured. None and () mean: not measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from gddctl.core.errors import ArtifactError
from gddctl.core.reports.latency_parts import Limit, Load, Memory, Sensed, Span, Split, Work

LATENCY_SCHEMA = 2  # 2 added scenarios, the split, sensors, memory, the machine's limits, and what a comparison needs
Scenario = Literal["one-at-a-time", "offered-load"]
_PARTS: dict[str, type[Any]] = {"load": Load, "split": Split, "sensed": Sensed, "memory": Memory, "work": Work, "limit": Limit}


@dataclass(frozen=True)
class LatencyRow:
    """One artifact on one backend, with one batch size, in one scenario. Times in milliseconds.

    ``one-at-a-time``: a call starts when the one before it has answered; the percentiles are of the runtime's call alone, host memory to
    host memory. ``offered-load``: calls arrive by a schedule made beforehand; the percentiles count from the intended arrival.
    """

    model: str
    sha256: str
    backend: str  # "torch-cpu", "onnxruntime-cpu", …
    graph: str
    precision: str
    target: str
    batch: int
    input_size: tuple[int, int]  # (height, width)
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    min_ms: float
    samples: int
    warmup_samples: int
    preprocess_p50_ms: float  # decoded images to the network's input, a batch
    rounds_p50_ms: tuple[float, ...]  # median of each turn: the spread between turns
    miou: float | None  # of this artifact, 0..1, where an evaluation of it is at hand
    environment: dict[str, str]  # versions, threads, instruction set, device
    scenario: Scenario = "one-at-a-time"
    load: Load | None = None  # offered-load alone
    split: Split | None = None  # where the time goes, from the file to the mask
    transfers: bool | None = None  # whether copies to and from a device are inside the percentiles; None: there is no device
    cuda_graph: bool | None = None  # whether a recorded CUDA graph was launched; None: there is no device
    rounds_p99_ms: tuple[float, ...] = ()  # 99th percentile of each turn
    stable: bool | None = None  # whether warm-up ended by the median having settled
    threads: int | None = None
    busy_cpus: float | None = None  # CPU seconds of the process per second of the timed calls; below 1 on a CPU, others had its CPU
    waiting_cpus: float | None = None  # seconds that its threads were ready and had no CPU, per second of the timed calls
    file: str = ""  # the artifact's file name
    file_bytes: int | None = None
    verified: str = ""  # what the file was found to hold when it was made, by its census: "int8 27 of 28 convolutions"
    weights_sha256: str = ""  # of the student it was made from
    calibration_sha256: str | None = None  # of the calibration record, INT8 only
    opset: int | None = None  # of the ONNX file, or of that which an engine was built from
    build_seconds: float | None = None  # engines alone: what building it took
    max_ms: float | None = None  # the slowest call; one of many, so it says more of the machine than of the model
    sensed: Sensed | None = None  # clocks, throttling, temperature, power
    memory: Memory | None = None
    work: Work | None = None  # what one call computes and moves
    limit: Limit | None = None  # what this machine reaches in a short probe of the same kind of arithmetic

    @property
    def cv(self) -> float:
        """Coefficient of variation of the samples."""
        return self.std_ms / self.mean_ms if self.mean_ms else 0.0

    @property
    def throughput(self) -> float:
        """Images per second: answered under load, or one call after another."""
        if self.load is not None:
            return self.load.throughput
        return 1000.0 * self.batch / self.mean_ms if self.mean_ms else 0.0

    @property
    def deprived(self) -> float | None:
        """Share, 0..1, of the CPU time that the process wanted and others had; None where that was not measured."""
        if self.busy_cpus is None or self.waiting_cpus is None or not self.busy_cpus + self.waiting_cpus:
            return None
        return self.waiting_cpus / (self.busy_cpus + self.waiting_cpus)

    @property
    def compute_ms(self) -> float:
        """Median of the computing alone: without copies where those are told apart, and without waiting under load."""
        if self.split is not None and self.split.host_to_device is not None and self.split.inference is not None:
            return self.split.inference.p50_ms
        return self.load.service_p50_ms if self.load is not None else self.p50_ms

    @property
    def arithmetic_share(self) -> float | None:
        """Achieved multiply-accumulates per second over what the probe's matrix product reached (0..1; can exceed 1)."""
        if self.work is None or self.work.macs is None or self.limit is None or self.limit.macs_per_s is None or not self.compute_ms:
            return None
        return self.work.macs / (self.compute_ms / 1000.0) / self.limit.macs_per_s

    @property
    def bandwidth_share(self) -> float | None:
        """Bytes of all tensors that the kernels read and write, per second, over what the probe's copy moved (can exceed 1: caches)."""
        if self.work is None or self.work.bytes is None or self.limit is None or self.limit.bytes_per_s is None or not self.compute_ms:
            return None
        return self.work.bytes / (self.compute_ms / 1000.0) / self.limit.bytes_per_s

    def to_json(self) -> dict[str, Any]:
        """JSON form, with what is computed from the fields."""
        computed = ("cv", "throughput", "arithmetic_share", "bandwidth_share")
        return {**asdict(self), "input_size": list(self.input_size), **{name: getattr(self, name) for name in computed}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LatencyRow:
        """Read back :meth:`to_json`, also of schema 1."""
        given = {item.name: value[item.name] for item in fields(cls) if item.name in value}
        for name in ("input_size", "rounds_p50_ms", "rounds_p99_ms"):
            if name in given:
                given[name] = tuple(given[name])
        for name, kind in _PARTS.items():
            if given.get(name) is not None:
                given[name] = kind.from_json(given[name])
        return cls(**given)


@dataclass(frozen=True)
class LatencyReport:
    """Rows measured taking turns in one session; rows of different reports compare by a test alone (``prove.regression``)."""

    rows: tuple[LatencyRow, ...]
    raw_file: str | None = None  # .npz beside the JSON: inference_i and more of row i, in milliseconds
    command: tuple[str, ...] = ()  # what was typed
    started: str = ""  # "2026-11-20 23:10 +0000"
    machine: dict[str, str] = field(default_factory=dict)  # of the host: kernel, governor, power mode, …
    idle_power_w: float | None = None  # of all that the power sensors cover, before anything ran
    idle_power_source: str = ""
    skipped: tuple[str, ...] = ()  # "FILE on DEVICE: why", of combinations that were not measured

    @property
    def environment(self) -> dict[str, str]:
        """What the rows were measured with; values that differ between rows are all named: versions of several runtimes, say."""
        found: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for key, value in row.environment.items():
                if key not in ("backend", "provider", "nodes"):  # of one row, and told there
                    found.setdefault(key, {})[value] = None
        return {**self.machine, **{key: " / ".join(values) for key, values in found.items()}}

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "rows"}
        lists = {"command": list(self.command), "skipped": list(self.skipped)}
        return {"schema": LATENCY_SCHEMA, **own, **lists, "rows": [row.to_json() for row in self.rows]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LatencyReport:
        """Read back :meth:`to_json`, also of schema 1.

        Raises:
            ArtifactError: a schema that this version does not know.
        """
        if value.get("schema", 1) not in (1, LATENCY_SCHEMA):
            raise ArtifactError(
                f"a latency report of schema {value['schema']}; this version reads 1 and {LATENCY_SCHEMA}", remedy="update gddctl"
            )
        given = {item.name: value[item.name] for item in fields(cls) if item.name in value}
        for name in ("command", "skipped"):
            if name in given:
                given[name] = tuple(given[name])
        return cls(**{**given, "rows": tuple(LatencyRow.from_json(row) for row in value["rows"])})


__all__ = ["LATENCY_SCHEMA", "LatencyReport", "LatencyRow", "Limit", "Load", "Memory", "Scenario", "Sensed", "Span", "Split", "Work"]
