"""A single number of a file is its smallest batch, one call after another."""

from __future__ import annotations

import dataclasses

from gddctl.core.reports.latency import LatencyRow, Load
from gddctl.core.reports.latency_choice import plain_rows, plain_times

ROW = LatencyRow(
    "m", "a", "onnxruntime-cpu", "logits", "fp32", "any", 1, (8, 8), 5, 5, 5, 5, 5, 0, 5, 10, 1, 0.1, (5,), None, {},
)  # fmt: skip


def test_load_batches_and_other_backends_do_not_hide_the_plain_row() -> None:
    loaded = dataclasses.replace(ROW, load=Load("poisson", 0, 9, 9, 5), p50_ms=50)
    large = dataclasses.replace(ROW, batch=8, p50_ms=40)
    cuda = dataclasses.replace(ROW, backend="onnxruntime-cuda", p50_ms=1)
    other = dataclasses.replace(ROW, sha256="b", batch=8)
    rows = [large, loaded, ROW, cuda, other, large, loaded]
    assert plain_rows(rows) == [ROW, cuda, other]
    assert plain_times(rows) == {"a": ROW, "b": other}
    assert plain_rows([loaded]) == []
