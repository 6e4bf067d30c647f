"""The parity rungs as the page shows them: every number beside its limit, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gddctl.core.reports.parity import ParityReport, Rung
from gddctl.report.wording import MISSING, decibels, megabytes, milliseconds, percent, points, scientific


@dataclass(frozen=True)
class Measure:
    """One number of a rung."""

    name: str
    value: str
    limit: str  # "" where nothing is asked
    kept: bool
    note: str = ""


@dataclass(frozen=True)
class RungView:
    """One comparison."""

    reference: str
    candidate: str
    passed: bool
    failures: tuple[str, ...]
    measures: tuple[Measure, ...]
    images: int
    gate: str
    emulated: bool


def rung_views(report: ParityReport | None) -> tuple[RungView, ...]:
    """The rungs in order; none without a report."""
    return tuple(_view(rung) for rung in report.rungs) if report is not None else ()


def _view(rung: Rung) -> RungView:
    return RungView(
        reference=rung.reference,
        candidate=rung.title,
        passed=rung.passed,
        failures=rung.failures,
        measures=tuple(_measures(rung)),
        images=rung.images,
        gate=rung.precision.upper(),
        emulated=rung.emulated,
    )


def _measures(rung: Rung) -> Iterator[Measure]:
    limits, drop, worst = rung.limits, -rung.miou_delta_points, rung.worst_class_delta_points
    yield _at_least("Agreement, %", percent_fine(rung.agreement), rung.agreement, limits.min_agreement, percent_fine)
    near, sure = rung.boundary_agreement, rung.confident_agreement
    yield _at_least(
        "Near borders, %", percent_fine(near), near, limits.min_boundary_agreement, percent_fine, due=rung.boundary_px is not None
    )
    yield _at_least(
        "Where confident, %", percent_fine(sure), sure, limits.min_confident_agreement, percent_fine, due=rung.confident_margin is not None
    )
    yield Measure("mIoU, %", f"{percent(rung.reference_miou)} → {percent(rung.candidate_miou)}", "", True)
    kept = limits.max_miou_drop is None or drop <= limits.max_miou_drop
    yield Measure("mIoU, points", points(rung.miou_delta_points), _floor(limits.max_miou_drop), kept)
    yield Measure("vs top, points", points(rung.top_delta_points), "", True)
    kept = limits.max_class_drop is None or worst is None or -worst <= limits.max_class_drop
    yield Measure("Worst class, points", points(worst), _floor(limits.max_class_drop), kept, note=(rung.worst_class or "") if worst else "")
    yield _at_least("SQNR, dB", decibels(rung.sqnr_db), rung.sqnr_db, limits.min_sqnr_db, decibels)
    yield Measure("Cosine", MISSING if rung.cosine is None else f"{rung.cosine:.6f}", "", True)
    most, found = limits.max_abs_diff, rung.max_abs_diff
    limit = "" if most is None or found is None else f"≤ {scientific(most)}"
    yield Measure("Max\u00a0|\u2060Δ|", scientific(found), limit, most is None or found is None or found <= most)
    yield Measure("p99.9\u00a0|\u2060Δ\u2060|", scientific(rung.p999_abs_diff), "", True)
    yield Measure("NaN, Inf", str(rung.nan), "0", rung.nan == 0)
    yield _at_most("p95\u00a0ms", rung.p95_ms, limits.max_p95_ms, milliseconds)
    size = None if rung.size_bytes is None else rung.size_bytes / 1e6
    yield _at_most("MB", size, limits.max_size_mb, lambda value: megabytes(None if value is None else round(value * 1e6)))


def bands(report: ParityReport | None) -> str:
    """What "near borders" and "where confident" mean in this report, as a sentence; "" where neither was measured."""
    rungs = report.rungs if report is not None else ()
    parts = [f"near borders: within {px} px of a class border of the label" for px in _values(rungs, "boundary_px")]
    parts += [f"where confident: the reference's first class leads by {m:g} logits" for m in _values(rungs, "confident_margin")]
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:]


def _values(rungs: tuple[Rung, ...], field: str) -> list[float]:
    return sorted({getattr(rung, field) for rung in rungs} - {None})


def percent_fine(value: float | None) -> str:
    """A share in percent with four decimals: agreement lives in the last of them.

    >>> percent_fine(0.99995)
    '99.9950'
    """
    return MISSING if value is None else f"{100 * value:.4f}"


def _floor(drop: float | None) -> str:
    return "" if drop is None else f"≥ {points(-drop)}"


def _at_least(
    name: str, words: str, value: float | None, limit: float | None, form: Callable[[float | None], str], *, due: bool = False
) -> Measure:
    """With ``due``, what was not measured does not keep its limit; without, there was nothing to measure."""
    kept = limit is None or (value >= limit if value is not None else not due)
    return Measure(name, words, "" if limit is None or (value is None and not due) else f"≥ {form(limit)}", kept)


def _at_most(name: str, value: float | None, limit: float | None, form: Callable[[float | None], str]) -> Measure:
    """What was not measured does not keep its limit."""
    kept = limit is None or (value is not None and value <= limit)
    return Measure(name, form(value), "" if limit is None else f"≤ {form(limit)}", kept)
