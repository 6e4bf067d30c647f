"""What a model runs before it is ready: every batch size that would make its runtime build, search or compile anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gddctl.runtime.open import open_runtime
from gddctl.serve.http.limits import Limits
from gddctl.serve.http.metrics import Metrics
from gddctl.serve.http.served import Served
from tests.conftest import Exported


@pytest.mark.parametrize(
    ("backend", "largest", "ran"),
    [
        ("onnxruntime-cpu", 8, [1, 1, 2]),
        ("onnxruntime-cpu", 1, [1, 1]),
        ("openvino-cpu", 8, [1, 1]),
        ("onnxruntime-tensorrt", 8, [8, 1, 1, 2]),  # the largest first: it is what the engine is built for
        ("onnxruntime-tensorrt", 1, [1, 1]),
        ("onnxruntime-cuda", 5, [1, 2, 3, 4, 5, 1, 2]),
        ("torch-cuda", 3, [1, 2, 3, 1, 2]),
    ],
)
def test_a_model_is_ready_when_no_batch_is_new_to_it(
    psp: Exported, monkeypatch: pytest.MonkeyPatch, backend: str, largest: int, ran: list[int]
) -> None:
    batches, asked = list[int](), dict[str, Any]()

    def opened(path: Any, **given: Any) -> Any:
        asked.update(given)
        runtime = open_runtime(path, threads=1)

        def run(batch: Any) -> Any:
            assert model.state == "LOADING"
            batches.append(len(batch))
            return runtime.run(batch)

        return SimpleNamespace(run=run, info=runtime.info, backend=backend, sha256=runtime.sha256)

    monkeypatch.setattr("gddctl.serve.http.served.open_runtime", opened)
    model = Served("m", psp.int8_deploy.path, Limits(max_batch=largest), Metrics(), device="cpu", threads=1)
    model.load()
    assert model.close(60) and model.state == "READY"
    assert batches == ran and asked["max_batch"] == largest
