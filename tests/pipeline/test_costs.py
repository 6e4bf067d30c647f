"""A limit on latency is judged by a call alone: rows under load and of larger batches do not stand for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gddctl.core.config.sections import Limits
from gddctl.core.files import write_bytes, write_json
from gddctl.core.reports.latency import LatencyReport, LatencyRow, Load
from gddctl.core.reports.parity import Rung
from gddctl.pipeline.costs import with_costs

ROW = LatencyRow("m", "a", "onnxruntime-cpu", "logits", "fp32", "any", 1, (8, 8), 5, 5, 5, 5, 5, 0, 5, 10, 1, 0.1, (5,), None, {})
RUNG = Rung("r", "m", "b", "a", "fp32", 1, 1.0, 0.5, 0.5, None, None, None, None, None, None, 0, Limits(max_p95_ms=6.0))


def test_waiting_and_batches_break_no_limit(tmp_path: Path) -> None:
    write_bytes(tmp_path / "m.onnx", b"12345")
    loaded = dataclasses.replace(ROW, load=Load("poisson", 0, 9, 9, 5), p95_ms=50)
    large = dataclasses.replace(ROW, batch=8, p95_ms=40)

    def judged(*rows: LatencyRow) -> Rung:
        write_json(tmp_path / "latency.json", LatencyReport(rows).to_json())
        return with_costs(RUNG, tmp_path / "m.onnx", "onnxruntime-cpu")

    assert judged(loaded, ROW, large).p95_ms == 5 and judged(loaded, ROW, large).passed
    assert judged(loaded, large).p95_ms == 40 and not judged(large).passed  # the nearest to one image that there is
    assert judged(loaded).p95_ms is None
    assert judged(ROW, dataclasses.replace(ROW, p95_ms=7)).p95_ms == 7  # of two measurements the slower
