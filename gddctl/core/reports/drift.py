"""Where in a graph a candidate leaves its reference: one line per tensor, in the order in which the reference computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

DRIFT_SCHEMA = 1
DRIFTS_NAME = "drift.json"  # in a run folder


@dataclass(frozen=True)
class TensorDrift:
    """One tensor of the reference against the candidate's of the same name."""

    name: str
    kind: str  # of the node that makes it, e.g. "Conv"; "input" for the graph's own
    sqnr_db: float  # within +-200; -200 where the candidate gives NaN or Inf
    inherited_db: float  # the lowest SQNR among the tensors it is made from
    max_abs_diff: float | None
    nan: int  # NaN and Inf values in the candidate's tensor


@dataclass(frozen=True)
class DriftReport:
    """The tensors that both graphs have, and which of them is the first to drift."""

    reference: str
    candidate: str
    images: int
    tensors: tuple[TensorDrift, ...]  # in graph order
    floor_db: float  # a tensor below has drifted
    drop_db: float  # a tensor that loses more than this at once has drifted
    healthy_db: float  # a tensor above counts as this good: what rounding alone does to a good one is no drop
    unmatched: int  # tensors of the reference without a counterpart

    def lost(self, tensor: TensorDrift) -> float:
        """dB that this tensor's own making lost, beyond what rounding alone does to a good one."""
        return min(tensor.inherited_db, self.healthy_db) - tensor.sqnr_db

    def drifted(self, tensor: TensorDrift) -> bool:
        """Whether this tensor is broken, or badly worn."""
        return tensor.nan > 0 or tensor.sqnr_db < self.floor_db or self.lost(tensor) > self.drop_db

    @property
    def first(self) -> TensorDrift | None:
        """The first that drifted, in graph order; None where none did."""
        return next((tensor for tensor in self.tensors if self.drifted(tensor)), None)

    def worst(self, count: int) -> tuple[TensorDrift, ...]:
        """The ``count`` tensors whose own making lost most, worst first."""
        return tuple(sorted(self.tensors, key=self.lost, reverse=True)[:count])

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number; ``first`` is written for readers."""
        return {"schema": DRIFT_SCHEMA, **asdict(self), "first": self.first.name if self.first else None}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DriftReport:
        """Read back :meth:`to_json`; what drifted is computed anew."""
        given = {item.name: value[item.name] for item in fields(cls)}
        return cls(**{**given, "tensors": tuple(TensorDrift(**tensor) for tensor in value["tensors"])})


def drifts_to_json(reports: Sequence[DriftReport]) -> dict[str, Any]:
    """A run's comparisons in one file."""
    return {"schema": DRIFT_SCHEMA, "reports": [report.to_json() for report in reports]}


def drifts_from_json(value: dict[str, Any]) -> tuple[DriftReport, ...]:
    """Read back :func:`drifts_to_json`."""
    return tuple(DriftReport.from_json(report) for report in value["reports"])
