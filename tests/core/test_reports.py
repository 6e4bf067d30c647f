"""Verdicts are computed: every limit has a number that breaks it, and reading a report back computes the verdict anew."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gddctl.core.config.sections import Limits
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.parity import ParityReport, Rung, Skipped

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


@pytest.mark.parametrize(
    ("limits", "measured", "words"),
    [
        (Limits(max_p95_ms=5.0), {"p95_ms": 5.01}, "p95 5.01 ms > 5 ms"),
        (Limits(max_p95_ms=5.0), {}, "p95 not measured"),
        (Limits(max_size_mb=12.0), {"size_bytes": 12_000_001}, "size 12.00 MB > 12 MB"),
        (Limits(max_size_mb=12.0), {}, "size not measured"),
    ],
)
def test_what_a_candidate_costs_has_limits(limits: Limits, measured: dict[str, Any], words: str) -> None:
    (failure,) = dataclasses.replace(GOOD, limits=limits, **measured).failures
    assert failure.startswith(words)
    assert dataclasses.replace(GOOD, limits=limits, p95_ms=5.0, size_bytes=12_000_000).passed


def test_a_report_of_schema_1_reads_back_and_one_of_the_future_does_not() -> None:
    old = ParityReport((GOOD,)).to_json()
    first_schema = {
        "reference", "candidate", "reference_sha256", "candidate_sha256", "precision", "images", "agreement", "reference_miou",
        "candidate_miou", "worst_class", "worst_class_delta_points", "sqnr_db", "cosine", "max_abs_diff", "p999_abs_diff", "nan",
    }  # fmt: skip
    limits = ("min_agreement", "max_miou_drop", "max_class_drop", "min_sqnr_db", "max_abs_diff")
    rung = {key: value for key, value in old["rungs"][0].items() if key in first_schema}
    rung["limits"] = {key: old["rungs"][0]["limits"][key] for key in limits}
    read = ParityReport.from_json({"schema": 1, "passed": True, "rungs": [rung]})
    assert read.rungs == (GOOD,) and read.skipped == ()
    assert (read.rungs[0].boundary_agreement, read.rungs[0].p95_ms) == (None, None)
    del rung["agreement"]
    with pytest.raises(KeyError):
        ParityReport.from_json({"rungs": [rung]})
    with pytest.raises(ValueError, match="schema 3"):
        ParityReport.from_json({**old, "schema": 3})


def test_what_was_not_run_is_no_pass_and_no_failure() -> None:
    left_out = Skipped("a", "b.engine", "fp16", "not run", "no GPU")
    report = ParityReport((GOOD,), (left_out,))
    assert bool(report) and report.failures == ()
    assert not ParityReport((), (left_out,))
    assert ParityReport.from_json(report.to_json()) == report
    bad = dataclasses.replace(GOOD, agreement=0.5)
    assert ParityReport((GOOD, bad)).verdict_of("1") is False  # two rungs of one file: both must pass
    assert report.verdict_of("1") is True and report.verdict_of("2") is None
