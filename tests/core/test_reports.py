"""Verdicts are computed: every limit has a number that breaks it, and reading a report back computes the verdict anew."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gddctl.core.config.sections import Limits
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.parity import ParityReport, Rung

STRICT = Limits(min_agreement=0.99, max_miou_drop=0.5, max_class_drop=2.0, min_sqnr_db=30.0, max_abs_diff=0.1)
GOOD = Rung(
    reference="a", candidate="b", reference_sha256="0", candidate_sha256="1", precision="int8", images=3, agreement=0.995,
    reference_miou=0.600, candidate_miou=0.598, worst_class="pole", worst_class_delta_points=-1.0, sqnr_db=35.0, cosine=0.999,
    max_abs_diff=0.05, p999_abs_diff=0.01, nan=0, limits=STRICT,
)  # fmt: skip


def test_a_good_rung_passes() -> None:
    assert GOOD.passed
    assert GOOD.miou_delta_points == pytest.approx(-0.2)
    assert bool(ParityReport((GOOD,)))


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("agreement", 0.98, "agreement"),
        ("candidate_miou", 0.594, "mIoU -0.60 points"),
        ("worst_class_delta_points", -2.5, "'pole' -2.50"),
        ("sqnr_db", 29.0, "SQNR 29.0"),
        ("max_abs_diff", 0.2, "difference"),
        ("nan", 1, "NaN"),
    ],
)
def test_each_limit_can_break(field: str, value: Any, word: str) -> None:
    bad = dataclasses.replace(GOOD, **{field: value})
    assert not bad.passed
    (failure,) = bad.failures
    assert word in failure
    report = ParityReport((GOOD, bad))
    assert not report
    assert report.failures == (f"b: {failure}",)
    assert dataclasses.replace(bad, limits=Limits()).passed is (field != "nan")


def test_the_verdict_is_not_read_back() -> None:
    bad = dataclasses.replace(GOOD, agreement=0.5)
    value = ParityReport((bad,)).to_json()
    value["passed"] = value["rungs"][0]["passed"] = True
    assert not ParityReport.from_json(value)


def test_nothing_compared_is_no_pass() -> None:
    assert not ParityReport(())


def test_an_eval_report_names_absent_classes_and_round_trips() -> None:
    report = EvalReport("m", "0", "val", 2, "protocol", 0.5, 0.9, 0.6, {"sky": 0.5, "car": None})
    assert report.absent == ("car",)
    assert EvalReport.from_json(report.to_json()) == report


def test_a_latency_report_round_trips() -> None:
    row = LatencyRow(
        model="m", sha256="0", backend="b", graph="logits", precision="fp32", target="any", batch=1, input_size=(8, 16),
        p50_ms=1.0, p90_ms=2.0, p95_ms=3.0, p99_ms=4.0, mean_ms=2.0, std_ms=0.5, min_ms=0.9, samples=5, warmup_samples=2,
        preprocess_p50_ms=0.1, rounds_p50_ms=(1.0, 1.1), miou=None, environment={"threads": "2"},
    )  # fmt: skip
    report = LatencyReport((row,), raw_file="x.npz")
    assert row.cv == 0.25
    assert LatencyReport.from_json(report.to_json()) == report
