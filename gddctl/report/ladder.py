"""The parity rungs as the page shows them: every number beside its limit, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gddctl.core.reports.parity import ParityReport, Rung
from gddctl.report.wording import MISSING, decibels, percent, points, scientific


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


def rung_views(report: ParityReport | None) -> tuple[RungView, ...]:
    """The rungs in order; none without a report."""
    return tuple(_view(rung) for rung in report.rungs) if report is not None else ()


def _view(rung: Rung) -> RungView:
    return RungView(
        reference=rung.reference,
        candidate=rung.candidate,
        passed=rung.passed,
        failures=rung.failures,
        measures=tuple(_measures(rung)),
        images=rung.images,
        gate=rung.precision.upper(),
    )


def _measures(rung: Rung) -> Iterator[Measure]:
    limits, drop, worst = rung.limits, -rung.miou_delta_points, rung.worst_class_delta_points
    yield _at_least("Agreement, %", percent_fine(rung.agreement), rung.agreement, limits.min_agreement, percent_fine)
    yield Measure("mIoU, %", f"{percent(rung.reference_miou)} → {percent(rung.candidate_miou)}", "", True)
    kept = limits.max_miou_drop is None or drop <= limits.max_miou_drop
    yield Measure("mIoU, points", points(rung.miou_delta_points), _floor(limits.max_miou_drop), kept)
    kept = limits.max_class_drop is None or worst is None or -worst <= limits.max_class_drop
    yield Measure("Worst class, points", points(worst), _floor(limits.max_class_drop), kept, note=(rung.worst_class or "") if worst else "")
    yield _at_least("SQNR, dB", decibels(rung.sqnr_db), rung.sqnr_db, limits.min_sqnr_db, decibels)
    yield Measure("Cosine", MISSING if rung.cosine is None else f"{rung.cosine:.6f}", "", True)
    most, found = limits.max_abs_diff, rung.max_abs_diff
    limit = "" if most is None or found is None else f"≤ {scientific(most)}"
    yield Measure("Max\u00a0|\u2060Δ|", scientific(found), limit, most is None or found is None or found <= most)
    yield Measure("p99.9\u00a0|\u2060Δ\u2060|", scientific(rung.p999_abs_diff), "", True)
    yield Measure("NaN, Inf", str(rung.nan), "0", rung.nan == 0)


def percent_fine(value: float | None) -> str:
    """A share in percent with four decimals: agreement lives in the last of them.

    >>> percent_fine(0.99995)
    '99.9950'
    """
    return MISSING if value is None else f"{100 * value:.4f}"


def _floor(drop: float | None) -> str:
    return "" if drop is None else f"≥ {points(-drop)}"


def _at_least(name: str, words: str, value: float | None, limit: float | None, form: Callable[[float | None], str]) -> Measure:
    kept = limit is None or value is None or value >= limit
    return Measure(name, words, "" if limit is None or value is None else f"≥ {form(limit)}", kept)
