"""What the serving benchmarks leave with 1 for: every number that they promise, each by itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
OVERHEAD = {"added_p50_ms": 2.0, "added_p99_ms": 5.0, "direct_p50_ms": 100.0, "live_s": 2.0, "ready_s": 2.5}
LOAD = {"wrong": 0, "lost": 0, "seconds": 60.0, "rss_start_mib": 200.0, "rss_end_mib": 240.0}


def missed(name: str, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines: list[str] = module.missed_by(found)
    return lines


@pytest.mark.parametrize(
    ("benchmark", "good", "bad"),
    [
        ("serve_overhead", OVERHEAD, {"added_p50_ms": 2.1}),
        ("serve_overhead", OVERHEAD, {"added_p99_ms": 5.1}),
        ("serve_overhead", OVERHEAD, {"live_s": 2.1}),
        ("serve_overhead", OVERHEAD, {"ready_s": 2.51}),
        ("serve_overhead", OVERHEAD, {"ready_s": float("nan")}),
        ("serve_load", LOAD, {"wrong": 1}),
        ("serve_load", LOAD, {"lost": 1}),
        ("serve_load", LOAD, {"rss_end_mib": 240.1}),
    ],
)
def test_each_promise_is_a_gate(benchmark: str, good: dict[str, Any], bad: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert missed(benchmark, good, monkeypatch) == []
    (line,) = missed(benchmark, {**good, **bad}, monkeypatch)
    assert line.startswith("missed: ") and "expected" in line


def test_short_loads_do_not_judge_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missed("serve_load", {**LOAD, "seconds": 3.0, "rss_end_mib": 900.0}, monkeypatch) == []
