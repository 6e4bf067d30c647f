"""What a graph computes, counted against the network's own shapes, and what a probe says of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gddctl.core.reports.latency_parts import Limit, Work
from gddctl.prove.gauge import Gauged, with_gauges
from gddctl.prove.gauge_models import matmul_model
from gddctl.prove.gauge_worker import arithmetic, count, macs_of
from tests.prove.test_regression import row


def counted_by_torch(bundle: Path) -> int:
    """Multiply-accumulates of convolutions and of the pooling's matrix products, from hooks on the network itself."""
    import torch
    from torch import nn

    from gddctl.models.checkpoint import load_bundle

    model, card = load_bundle(bundle)
    total = 0

    def convolution(module: Any, given: Any, out: Any) -> None:
        nonlocal total
        total += out.numel() * module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
    with torch.no_grad():
        model.predict_logits(torch.zeros(1, 3, *card.preprocess.size))
    return total


def test_convolutions_count_as_in_the_network(psp: Any) -> None:
    """What is over torch's convolutions is PSP's pooling, two matrix products per bin size: under 1 % here."""
    expected = counted_by_torch(psp.bundle)
    for artifact in (psp.fp32, psp.fp32_deploy, psp.int8, psp.int8_deploy):
        found = count(artifact.path)
        assert expected < found["macs"] < 1.01 * expected
        assert found["activation_bytes"] > 0
    assert count(psp.int8.path)["activation_bytes"] < 0.6 * count(psp.fp32.path)["activation_bytes"]  # codes of one byte for four


def test_macs_by_shape() -> None:
    def node(op: str, left: list[int], right: list[int], out: list[int]) -> Any:
        return {"op_name": op, "input_type_shape": [{"float": left}, {"float": right}], "output_type_shape": [{"float": out}]}

    assert macs_of(node("Conv", [1, 3, 8, 8], [16, 3, 3, 3], [1, 16, 4, 4])) == 16 * 16 * 27
    assert macs_of(node("Conv", [1, 8, 4, 4], [8, 1, 3, 3], [1, 8, 4, 4])) == 8 * 16 * 9  # one input channel per group
    assert macs_of(node("MatMul", [2, 5, 7], [7, 3], [2, 5, 3])) == 2 * 5 * 7 * 3
    assert macs_of(node("Relu", [1, 3], [1, 3], [1, 3])) == 0


@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-4), ("int8", 0.0)])
def test_the_probes_model_is_a_matrix_product(kind: Any, tolerance: float) -> None:
    import onnxruntime as ort

    data, a = matmul_model(kind, 48)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    b = onnx.numpy_helper.to_array(model.graph.initializer[0])
    (found,) = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"a": a})
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=tolerance * 48)  # FP32 sums of 48 products of about 1


def test_a_probe_gives_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddctl.prove.gauge_worker.SECONDS", 0.0)
    monkeypatch.setattr("gddctl.prove.gauge_worker.SIZES", {"cpu": 64})
    monkeypatch.setattr("gddctl.prove.gauge_worker.pin", lambda cpus: None)  # this process is the tests'
    found = arithmetic("fp32", "cpu", 1)
    assert found["macs_per_s"] > 1e6 and found["how"] == "fp32 MatMul 64 on ONNX Runtime cpu, 1 thread"


def test_rows_of_one_network_share_its_count(psp: Any) -> None:
    rows = [row(precision="fp32", weights_sha256="w", batch=2, file_bytes=1000), row(backend="torch-cpu", weights_sha256="w")]
    other = row(backend="torch-cpu", weights_sha256="v")
    onnx_row, torch_row, unknown = with_gauges(
        [Gauged(rows[0], psp.fp32.path, False), Gauged(rows[1], psp.bundle, False), Gauged(other, psp.bundle, False)], threads=1
    )
    one = count(psp.fp32.path)
    assert onnx_row.work == Work(2 * one["macs"], 2 * one["activation_bytes"] + 1000, "ONNX Runtime's profile of one run")
    assert torch_row.work is not None and (torch_row.work.macs, torch_row.work.bytes) == (one["macs"], None)
    assert unknown.work is None and unknown.arithmetic_share is None
    assert onnx_row.limit is not None and onnx_row.limit.macs_per_s and onnx_row.limit.bytes_per_s
    assert onnx_row.limit == torch_row.limit  # asked once


def test_shares_are_what_they_say() -> None:
    measured = replace(row(), p50_ms=10.0, work=Work(macs=10**9, bytes=10**8), limit=Limit(macs_per_s=4e11, bytes_per_s=2e10))
    assert measured.arithmetic_share == pytest.approx(0.25) and measured.bandwidth_share == pytest.approx(0.5)
    assert replace(measured, limit=Limit()).arithmetic_share is None
