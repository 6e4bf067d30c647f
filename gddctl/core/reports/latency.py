"""How long an artifact takes, where, and how that was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LATENCY_SCHEMA = 1


@dataclass(frozen=True)
class LatencyRow:
    """One artifact on one backend. Times in milliseconds; ``inference`` is the runtime call alone, host memory to host memory."""

    model: str
    sha256: str
    backend: str  # "torch", "onnxruntime-cpu", …
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
    preprocess_p50_ms: float  # decoded image to network input
    rounds_p50_ms: tuple[float, ...]  # median of each turn: the spread between turns
    miou: float | None  # of this artifact, 0..1, where an evaluation of it is at hand
    environment: dict[str, str]  # versions, threads, instruction set, device

    @property
    def cv(self) -> float:
        """Coefficient of variation of the samples."""
        return self.std_ms / self.mean_ms if self.mean_ms else 0.0


@dataclass(frozen=True)
class LatencyReport:
    """Rows measured taking turns in one session; rows of different reports do not compare."""

    rows: tuple[LatencyRow, ...]
    raw_file: str | None = None  # .npz beside the JSON, one array of milliseconds per row

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        rows = [{**asdict(row), "input_size": list(row.input_size), "cv": row.cv} for row in self.rows]
        return {"schema": LATENCY_SCHEMA, "raw_file": self.raw_file, "rows": rows}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LatencyReport:
        """Read back :meth:`to_json`."""
        rows = []
        for row in value["rows"]:
            fields = {key: row[key] for key in LatencyRow.__dataclass_fields__}
            fields["input_size"], fields["rounds_p50_ms"] = tuple(row["input_size"]), tuple(row["rounds_p50_ms"])
            rows.append(LatencyRow(**fields))
        return cls(rows=tuple(rows), raw_file=value.get("raw_file"))
