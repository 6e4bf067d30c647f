"""Latency reports: there and back, the first schema still reads, a later one is refused; settings keep their digests."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gddctl.core.config.bench import BenchConfig
from gddctl.core.config.load import parse
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.latency_parts import Limit, Load, Memory, Range, Sensed, Span, Split, Work

FIRST = {
    "schema": 1, "raw_file": "latency.npz",
    "rows": [
        {
            "model": "student", "sha256": "ab", "backend": "onnxruntime-cpu", "graph": "deploy", "precision": "int8", "target": "ort-cpu",
            "batch": 2, "input_size": [64, 96], "p50_ms": 4.0, "p90_ms": 5.0, "p95_ms": 6.0, "p99_ms": 7.0, "mean_ms": 4.0, "std_ms": 0.4,
            "min_ms": 3.5, "samples": 200, "warmup_samples": 100, "preprocess_p50_ms": 0.1, "rounds_p50_ms": [4.0, 4.1, 3.9], "miou": 0.5,
            "environment": {"threads": "2"}, "cv": 0.1,
        }
    ],
}  # fmt: skip


def full() -> LatencyRow:
    span = Span(1.0, 2.0, 1.1, 30)
    return replace(
        LatencyReport.from_json(FIRST).rows[0],
        scenario="offered-load",
        transfers=True,
        load=Load("poisson", 3, 50.0, 99.0, 4.0, True, 12.0, True, ((40.0, 8.0), (60.0, None))),
        split=Split(span, span, span, Span(3.0, 3.5, 3.1, 30), None, span, "CUDA events"),
        cuda_graph=False, rounds_p99_ms=(7.0, 7.1, 7.2), stable=True, threads=2, file="a.onnx", file_bytes=5, verified="int8",
        sensed=Sensed(Range(1.0, 2.0, 3.0), None, None, ("power cap",), {"GPU": (40.0, 50.0)}, 8.0, "VDD_IN", {"VDD_IN": 8.0}, 0.1, ""),
        memory=Memory(10, 20, "NVML", 30), work=Work(10**9, 10**7, "profile"), limit=Limit(1e12, "fp32", 1e10, "copy"),
    )  # fmt: skip


def test_there_and_back_through_text() -> None:
    report = LatencyReport((full(),), "latency.npz", ("gddctl", "bench"), "now", {"kernel": "6"}, 3.5, "VDD_IN", ("x: y",))
    assert LatencyReport.from_json(json.loads(json.dumps(report.to_json(), allow_nan=False))) == report


def test_the_first_schema_reads_and_knows_no_more_than_it_did() -> None:
    (row,) = LatencyReport.from_json(FIRST).rows
    assert row.scenario == "one-at-a-time" and row.rounds_p50_ms == (4.0, 4.1, 3.9) and row.input_size == (64, 96)
    assert (row.split, row.load, row.sensed, row.transfers, row.arithmetic_share) == (None,) * 5
    assert row.throughput == 500.0  # two images in 4 ms


def test_a_later_schema_is_refused() -> None:
    with pytest.raises(ArtifactError, match="schema 3; this version reads 1 and 2"):
        LatencyReport.from_json({**FIRST, "schema": 3})


def test_computing_is_told_apart_from_copies_and_from_waiting() -> None:
    row = full()
    assert row.compute_ms == 3.0  # by events
    assert replace(row, split=None).compute_ms == 4.0  # the call under load, without the queue
    assert row.arithmetic_share == pytest.approx(1e9 / 3e-3 / 1e12) and row.throughput == 99.0


def test_settings_from_before_read_and_are_named_as_before() -> None:
    old = {"threads": 2, "batch": 1, "samples": 200, "seconds": 10.0, "rounds": 3, "torch": True}
    assert json.loads(BenchConfig().model_dump_json()) == old
    assert parse(BenchConfig, old) == BenchConfig()
    changed = parse(BenchConfig, {**old, "batch": [1, 4], "rate": 20.0})
    assert changed.batches == (1, 4) and json.loads(changed.model_dump_json()) == {**old, "batch": [1, 4], "rate": 20.0}
    with pytest.raises(ConfigError, match="at least one"):
        parse(BenchConfig, {"devices": []})


def test_an_environment_names_what_differs_between_rows() -> None:
    first = LatencyReport.from_json(FIRST).rows[0]
    other = replace(first, environment={"threads": "2", "openvino": "2026.1", "warm_up": "ended by time", "provider": "CPU"})
    first = replace(first, environment={"threads": "2", "warm_up": "stable"})
    found = LatencyReport((first, other), machine={"kernel": "6"}).environment
    assert found == {"kernel": "6", "threads": "2", "warm_up": "stable / ended by time", "openvino": "2026.1"}
