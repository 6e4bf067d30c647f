"""Does a candidate answer like its reference: numbers, limits, and a verdict computed from both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from gddctl.core.config.sections import Limits

PARITY_SCHEMA = 2  # 2 added border, confidence, latency, size, the delta to the top, and rungs that were not judged

Source = Literal["pixels", "files"]  # what both models were given: one decoded image, or the candidate the raw file


@dataclass(frozen=True)
class Rung:
    """One comparison over a set of images. Fields that a graph cannot give (a mask has no logits) are None.

    Fields with a default came with schema 2; in a report read back from schema 1 they are None: not measured.
    """

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
    boundary_agreement: float | None = None  # agreement within ``boundary_px`` of a class border of the label; None: no label shows one
    boundary_px: int | None = None  # pixels at label size
    confident_agreement: float | None = None  # agreement where the reference's top two logits are ``confident_margin`` apart
    confident_margin: float | None = None  # in logits; None where one of the two gives no logits
    confident_share: float | None = None  # of the labelled pixels
    top: str | None = None  # the model at the top of the ladder
    top_delta_points: float | None = None  # mIoU, candidate minus top: the sum of the deltas on the way down
    emulated: bool = False  # the candidate ran on a runtime that only imitates its arithmetic
    source: Source = "pixels"
    p95_ms: float | None = None  # of the candidate, where it was measured
    size_bytes: int | None = None  # of the candidate's file

    @property
    def title(self) -> str:
        """The candidate, and what is special about this rung."""
        return f"{self.candidate}, from image files" if self.source == "files" else self.candidate

    @property
    def miou_delta_points(self) -> float:
        """mIoU of the candidate minus that of the reference, in points."""
        return 100 * (self.candidate_miou - self.reference_miou)

    @property
    def failures(self) -> tuple[str, ...]:
        """Each limit that is not kept, in words; a limit on something that was not measured is not kept."""
        return (*_broken_by_pixels(self), *_broken_by_logits(self), *_broken_by_cost(self))

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
        """Read back :meth:`to_json`, of schema 1 too; the verdict is computed anew."""
        given = {item.name: value[item.name] for item in fields(cls) if item.default is MISSING or item.name in value}
        return cls(**{**given, "limits": Limits(**value["limits"])})


@dataclass(frozen=True)
class Skipped:
    """A rung without a verdict: that is not a pass."""

    reference: str
    candidate: str
    precision: str
    state: Literal["not run", "not judged"]
    reason: str

    @property
    def title(self) -> str:
        """As :attr:`Rung.title`."""
        return self.candidate


@dataclass(frozen=True)
class ParityReport:
    """The rungs, in order. Truthy when every one that was judged passed, and one was."""

    rungs: tuple[Rung, ...]
    skipped: tuple[Skipped, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rungs) and all(rung.passed for rung in self.rungs)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every broken limit with the rung it belongs to."""
        return tuple(f"{rung.title}: {failure}" for rung in self.rungs for failure in rung.failures)

    def verdict_of(self, sha256: str) -> bool | None:
        """Whether every rung of this candidate passed; None where none was judged."""
        found = [rung.passed for rung in self.rungs if rung.candidate_sha256 == sha256]
        return all(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {
            "schema": PARITY_SCHEMA,
            "passed": bool(self),
            "rungs": [rung.to_json() for rung in self.rungs],
            "skipped": [asdict(item) for item in self.skipped],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ParityReport:
        """Read back :meth:`to_json`.

        Raises:
            ValueError: a later schema than this version knows.
        """
        if value.get("schema", 1) > PARITY_SCHEMA:
            raise ValueError(f"parity schema {value['schema']}, this version reads up to {PARITY_SCHEMA}")
        return cls(
            rungs=tuple(Rung.from_json(rung) for rung in value["rungs"]),
            skipped=tuple(Skipped(**item) for item in value.get("skipped", ())),
        )


def _broken_by_pixels(rung: Rung) -> Iterator[str]:
    limits = rung.limits
    if rung.nan:
        yield f"{rung.nan} NaN or Inf values in the output"
    if limits.min_agreement is not None and rung.agreement < limits.min_agreement:
        yield f"agreement {rung.agreement:.4%} < {limits.min_agreement:.4%}"
    if limits.min_boundary_agreement is not None:
        if rung.boundary_agreement is None:
            yield "agreement near class borders not measured"
        elif rung.boundary_agreement < limits.min_boundary_agreement:
            near = f"within {rung.boundary_px} px of class borders"
            yield f"agreement {near} {rung.boundary_agreement:.4%} < {limits.min_boundary_agreement:.4%}"
    if limits.max_miou_drop is not None and -rung.miou_delta_points > limits.max_miou_drop:
        yield f"mIoU {rung.miou_delta_points:+.2f} points, at most -{limits.max_miou_drop:.2f} allowed"
    worst = rung.worst_class_delta_points
    if limits.max_class_drop is not None and worst is not None and -worst > limits.max_class_drop:
        yield f"IoU of '{rung.worst_class}' {worst:+.2f} points, at most -{limits.max_class_drop:.2f} allowed"


def _broken_by_logits(rung: Rung) -> Iterator[str]:
    limits = rung.limits
    if limits.min_confident_agreement is not None and rung.confident_margin is not None:  # without logits there is no margin
        if rung.confident_agreement is None:
            yield f"agreement where the reference is confident not measured: no pixel has a margin of {rung.confident_margin:g}"
        elif rung.confident_agreement < limits.min_confident_agreement:
            yield f"agreement where the reference is confident {rung.confident_agreement:.4%} < {limits.min_confident_agreement:.4%}"
    if limits.min_sqnr_db is not None and rung.sqnr_db is not None and rung.sqnr_db < limits.min_sqnr_db:
        yield f"SQNR {rung.sqnr_db:.1f} dB < {limits.min_sqnr_db:.1f} dB"
    if limits.max_abs_diff is not None and rung.max_abs_diff is not None and rung.max_abs_diff > limits.max_abs_diff:
        yield f"max |difference| {rung.max_abs_diff:.2e} > {limits.max_abs_diff:.2e}"


def _broken_by_cost(rung: Rung) -> Iterator[str]:
    limits = rung.limits
    if limits.max_p95_ms is not None:
        if rung.p95_ms is None:
            yield f"p95 not measured, at most {limits.max_p95_ms:g} ms allowed"
        elif rung.p95_ms > limits.max_p95_ms:
            yield f"p95 {rung.p95_ms:.2f} ms > {limits.max_p95_ms:g} ms"
    if limits.max_size_mb is not None:
        if rung.size_bytes is None:
            yield f"size not measured, at most {limits.max_size_mb:g} MB allowed"
        elif rung.size_bytes > limits.max_size_mb * 1e6:
            yield f"size {rung.size_bytes / 1e6:.2f} MB > {limits.max_size_mb:g} MB"
