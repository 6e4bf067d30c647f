"""Does a candidate answer like its reference: numbers, limits, and a verdict computed from both."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gddctl.core.config.sections import Limits

PARITY_SCHEMA = 1


@dataclass(frozen=True)
class Rung:
    """One comparison over a set of images. Fields that a graph cannot give (a mask has no logits) are None."""

    reference: str
    candidate: str
    reference_sha256: str
    candidate_sha256: str
    precision: str  # whose limits apply
    images: int
    agreement: float  # share of labelled pixels with the same class, 0..1
    reference_miou: float  # 0..1
    candidate_miou: float
    worst_class: str | None
    worst_class_delta_points: float | None  # IoU, candidate minus reference
    sqnr_db: float | None  # capped at 200 when nothing differs
    cosine: float | None
    max_abs_diff: float | None
    p999_abs_diff: float | None
    nan: int  # NaN and Inf values in the candidate's output
    limits: Limits

    @property
    def miou_delta_points(self) -> float:
        """mIoU of the candidate minus that of the reference, in points."""
        return 100 * (self.candidate_miou - self.reference_miou)

    @property
    def failures(self) -> tuple[str, ...]:
        """Each limit that is not kept, in words."""
        limits, found = self.limits, []
        if self.nan:
            found.append(f"{self.nan} NaN or Inf values in the output")
        if limits.min_agreement is not None and self.agreement < limits.min_agreement:
            found.append(f"agreement {self.agreement:.4%} < {limits.min_agreement:.4%}")
        if limits.max_miou_drop is not None and -self.miou_delta_points > limits.max_miou_drop:
            found.append(f"mIoU {self.miou_delta_points:+.2f} points, at most -{limits.max_miou_drop:.2f} allowed")
        worst = self.worst_class_delta_points
        if limits.max_class_drop is not None and worst is not None and -worst > limits.max_class_drop:
            found.append(f"IoU of '{self.worst_class}' {worst:+.2f} points, at most -{limits.max_class_drop:.2f} allowed")
        if limits.min_sqnr_db is not None and self.sqnr_db is not None and self.sqnr_db < limits.min_sqnr_db:
            found.append(f"SQNR {self.sqnr_db:.1f} dB < {limits.min_sqnr_db:.1f} dB")
        if limits.max_abs_diff is not None and self.max_abs_diff is not None and self.max_abs_diff > limits.max_abs_diff:
            found.append(f"max |difference| {self.max_abs_diff:.2e} > {limits.max_abs_diff:.2e}")
        return tuple(found)

    @property
    def passed(self) -> bool:
        """No limit broken."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """JSON form; ``passed`` and ``failures`` are written for readers and never read back."""
        return {
            **asdict(self),
            "limits": self.limits.model_dump(),
            "miou_delta_points": self.miou_delta_points,
            "passed": self.passed,
            "failures": list(self.failures),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rung:
        """Read back :meth:`to_json`; the verdict is computed anew."""
        fields = {key: value[key] for key in cls.__dataclass_fields__ if key != "limits"}
        return cls(**fields, limits=Limits(**value["limits"]))


@dataclass(frozen=True)
class ParityReport:
    """The rungs, in order. Truthy when every one passed."""

    rungs: tuple[Rung, ...]

    def __bool__(self) -> bool:
        return bool(self.rungs) and all(rung.passed for rung in self.rungs)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every broken limit with the rung it belongs to."""
        return tuple(f"{rung.candidate}: {failure}" for rung in self.rungs for failure in rung.failures)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {"schema": PARITY_SCHEMA, "passed": bool(self), "rungs": [rung.to_json() for rung in self.rungs]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ParityReport:
        """Read back :meth:`to_json`."""
        return cls(rungs=tuple(Rung.from_json(rung) for rung in value["rungs"]))
