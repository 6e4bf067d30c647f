"""How ``gddctl parity`` shows a comparison, a ladder and a drift on the terminal."""

from __future__ import annotations

from gddctl.commands.output import Output, percent
from gddctl.core.reports.drift import DriftReport
from gddctl.core.reports.parity import ParityReport, Rung

_WORST = 8  # lines of the table of a drift
_COLUMNS = ("file", "against", "verdict", "agree %", "border %", "confident %", "mIoU", "vs top", "worst class", "SQNR dB", "MB")


def show_pair(output: Output, report: ParityReport) -> None:
    """One comparison: every number beside its limit."""
    (rung,) = report.rungs
    limits, margin = rung.limits, rung.confident_margin
    confident = "where the reference is confident" if margin is None else f"where the reference leads by {margin:g} logits"
    rows = [
        ["pixel agreement %", _share(rung.agreement), _limit(limits.min_agreement, ">=", 100)],
        [f"within {rung.boundary_px} px of a border %", _share(rung.boundary_agreement), _limit(limits.min_boundary_agreement, ">=", 100)],
        [f"{confident} %", _share(rung.confident_agreement), _limit(limits.min_confident_agreement, ">=", 100)],
        ["mIoU reference %", percent(rung.reference_miou), ""],
        ["mIoU candidate %", percent(rung.candidate_miou), ""],
        ["mIoU delta, points", f"{rung.miou_delta_points:+.2f}", _limit(limits.max_miou_drop, ">= -", 1)],
        [
            f"worst class ({rung.worst_class}), points",
            _number(rung.worst_class_delta_points, "+.2f"),
            _limit(limits.max_class_drop, ">= -", 1),
        ],
        ["SQNR, dB", _number(rung.sqnr_db, ".1f"), _limit(limits.min_sqnr_db, ">=", 1)],
        ["cosine", _number(rung.cosine, ".6f"), ""],
        ["max |difference|", _number(rung.max_abs_diff, ".2e"), _limit(limits.max_abs_diff, "<=", 1)],
        ["p99.9 |difference|", _number(rung.p999_abs_diff, ".2e"), ""],
        ["NaN and Inf", str(rung.nan), "0"],
        ["p95, ms", _number(rung.p95_ms, ".2f"), _limit(limits.max_p95_ms, "<=", 1)],
        ["size, MB", _number(_megabytes(rung), ".2f"), _limit(limits.max_size_mb, "<=", 1)],
    ]
    output.table([f"{rung.images} images, {rung.precision} limits", "measured", "limit"], rows)
    if rung.emulated:
        output.say(f"{rung.candidate} was emulated: this runtime only imitates its arithmetic, hardware may still differ")
    output.say("passed" if report else "FAILED")


def show_ladder(output: Output, report: ParityReport) -> None:
    """One line per rung, broken limits below."""
    names = [*(rung.reference for rung in report.rungs), *(item.reference for item in report.skipped)]
    shared = min(names, key=len) + "-"  # the bundle's name begins those of its files
    rows = [_line(rung, shared) for rung in report.rungs]
    blank = ["-"] * (len(_COLUMNS) - 3)
    rows += [[item.title.removeprefix(shared), item.reference.removeprefix(shared), item.state, *blank] for item in report.skipped]
    output.table(_COLUMNS, rows)
    if report.rungs:
        first = report.rungs[0]
        margin = next((rung.confident_margin for rung in report.rungs if rung.confident_margin is not None), None)
        confident = f"; confident: where the reference's first class leads by {margin:g} logits" if margin is not None else ""
        output.say(f"{first.images} images; border: within {first.boundary_px} px of a class border{confident}; mIoU in points")
    for failure in report.failures:
        output.say(f"FAILED: {failure}")
    for item in report.skipped:
        output.say(f"{item.state}: {item.title} ({item.reason})")
    not_run = sum(item.state == "not run" for item in report.skipped)
    tail = f"; {not_run} not run, which is no pass" if not_run else ""
    output.say(f"{'passed' if report else 'FAILED'}{tail}")


def show_drift(output: Output, drift: DriftReport | None) -> None:
    """The first tensor that drifts, and those that lost most."""
    if drift is None:
        output.say("nothing to locate: no rung failed")
        return
    rows = [
        [item.name, item.kind, f"{item.sqnr_db:.1f}", f"{drift.lost(item):+.1f}", str(item.nan), "drifts" if drift.drifted(item) else ""]
        for item in drift.worst(_WORST)
    ]
    output.say()
    output.table(["tensors that lost most, by their own making", "made by", "SQNR dB", "lost dB", "NaN", ""], rows)
    if drift.first is None:
        output.say(f"no tensor drifts (floor {drift.floor_db:g} dB, at most {drift.drop_db:g} dB lost at once; {drift.images} images)")
    else:
        output.say(f"first to drift: {drift.first.name} ({drift.first.kind}, {drift.first.sqnr_db:.1f} dB; {drift.images} images)")


def _line(rung: Rung, shared: str) -> list[str]:
    verdict = "passed" if rung.passed else "FAILED"
    worst = _number(rung.worst_class_delta_points, "+.2f")
    return [
        rung.title.removeprefix(shared),
        rung.reference.removeprefix(shared),
        f"{verdict}, emulated" if rung.emulated else verdict,
        _share(rung.agreement),
        _share(rung.boundary_agreement),
        _share(rung.confident_agreement),
        f"{rung.miou_delta_points:+.2f}",
        _number(rung.top_delta_points, "+.2f"),
        "" if worst in ("+0.00", "-0.00") else f"{rung.worst_class} {worst}",
        _number(rung.sqnr_db, ".1f"),
        _number(_megabytes(rung), ".2f"),
    ]


def _megabytes(rung: Rung) -> float | None:
    return None if rung.size_bytes is None else rung.size_bytes / 1e6


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.4f}"


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _limit(value: float | None, sign: str, scale: float) -> str:
    return "" if value is None else f"{sign}{scale * value:g}"
