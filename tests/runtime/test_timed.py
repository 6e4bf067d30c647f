"""The parts of a run: ONNX Runtime's binding, tried on the CPU where host and device are one, and who offers parts at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gddctl.runtime.open import open_runtime
from gddctl.runtime.ort_binding import BoundCall
from gddctl.runtime.timed import Spans, Timed


def batch_for(runtime: Any, count: int, seed: int) -> Any:
    height, width = runtime.info.preprocess.size
    rng = np.random.default_rng(seed)
    if runtime.info.graph == "deploy":
        return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return rng.normal(size=(count, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("graph", ["logits", "deploy"])
def test_bound_buffers_answer_like_a_plain_run(psp: Any, graph: str) -> None:
    path = (psp.fp32 if graph == "logits" else psp.fp32_deploy).path
    with open_runtime(path, threads=1) as runtime:
        import onnxruntime

        bound = BoundCall(onnxruntime, runtime._open(), runtime._output, runtime.info, device="cpu")  # type: ignore[attr-defined]
        first = batch_for(runtime, 2, seed=1)
        answer, spans = bound.run(first)
        kept = answer.copy()
        for count, seed in ((2, 2), (1, 3)):
            again = batch_for(runtime, count, seed)
            np.testing.assert_array_equal(bound.run(again)[0], runtime.run(again))
        np.testing.assert_array_equal(answer, kept)  # not the buffer that the next call writes into
        np.testing.assert_array_equal(answer, runtime.run(first))
    assert spans.by == "wall clock" and min(spans.host_to_device, spans.inference, spans.device_to_host) > 0
    assert spans.inference > spans.host_to_device  # a network takes longer than copying one image


def test_without_a_device_there_are_no_parts(psp: Any) -> None:
    with open_runtime(psp.fp32.path, threads=1) as runtime:
        assert isinstance(runtime, Timed)
        batch = batch_for(runtime, 1, seed=0)
        answer, spans = runtime.run_timed(batch)
        assert spans is None
        np.testing.assert_array_equal(answer, runtime.run(batch))


def test_parts_are_the_distances_between_marks() -> None:
    assert Spans.between([1, 3, 10, 11], lambda start, end: float(end - start), "wall clock") == Spans(2.0, 7.0, 1.0, "wall clock")
